"""How the native engine is built, kept, and done without."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpsweep.proxy import native
from hpsweep.proxy.native import build
from hpsweep.proxy.train import train
from hpsweep.spec import Trial
from tests import fake_training as fake
from tests import processes
from tests.proxy.native_library import TARGETS, X86

TINY = Trial(width=16, head_size=8, depth=1, context=8, batch=2, steps=2, eval_sequences=3)
QUICK = ("-std=gnu11", "-O0", "-fPIC", "-shared")
COMPILER = build.find_compiler()
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing built, an empty cache, and the process's own library back afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "FLAGS", QUICK)
    monkeypatch.delenv("CC", raising=False)
    build._built.cache_clear()
    yield
    build._built.cache_clear()


def _built(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _compiler_script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the engine's sources that a test may change; its engine.c."""
    shutil.copytree(build.SOURCES, folder)
    monkeypatch.setattr(build, "SOURCES", folder)
    return folder / "engine.c"


def test_without_a_compiler_torch_trains_and_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert native.why_unavailable() == "no C compiler (cc, gcc or clang) was found"
    assert {row["engine"] for row in train([TINY]).rows} == {"torch"}
    with pytest.raises(RuntimeError, match="no C compiler"):
        native.train_native([TINY])


@needs_compiler
def test_with_a_compiler_the_native_engine_trains() -> None:
    assert native.why_unavailable() is None
    assert {row["engine"] for row in train([TINY]).rows} == {"native"}


@needs_compiler
def test_what_the_engine_leaves_to_torch_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    long = TINY.replace(context=1040, batch=1, steps=1)
    assert {row["engine"] for row in train([long]).rows} == {"torch"}


def test_a_compiler_that_fails_gives_its_first_error_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = _compiler_script(
        tmp_path / "broken", "echo note: hm >&2\necho fatal error: no stdint.h >&2\necho more >&2\nexit 3"
    )
    monkeypatch.setenv("CC", broken)
    assert native.why_unavailable() == f"{broken} could not build it: fatal error: no stdint.h"
    assert {row["engine"] for row in train([TINY]).rows} == {"torch"}
    _compiler_script(tmp_path / "broken", "echo no licence >&2\necho more >&2\nexit 3")
    build._built.cache_clear()
    assert native.why_unavailable() == f"{broken} could not build it: no licence"
    _compiler_script(tmp_path / "broken", "exit 3")
    build._built.cache_clear()
    assert native.why_unavailable() == f"{broken} could not build it: {broken} failed with exit status 3"
    assert _built(tmp_path / "cache/hpsweep") == []


@pytest.fixture
def waiting_input() -> Iterator[None]:
    """Standard input that gives nothing and does not end."""
    kept = os.dup(0)
    reads, writes = os.pipe()
    os.dup2(reads, 0)
    yield
    os.dup2(kept, 0)
    for end in (kept, reads, writes):
        os.close(end)


ODD = {
    "writes nonsense": ('echo nonsense > "$made"', "file too short"),
    "writes nothing": ("", "{compiler} wrote no library"),
    "writes another library": ('echo "int x;" > {folder}/x.c; {real} -fPIC -shared -o "$made" {folder}/x.c', "native_"),
    "speaks another encoding": (r"printf 'error: caf\351\n' >&2; exit 1", "error: caf\ufffd"),
    "waits for input": ("read line || exit 7", "{compiler} failed with exit status 7"),
    "does not end": ("exec sleep 60", "{compiler} was not done after 1 s"),
}


@needs_compiler
@pytest.mark.usefixtures("waiting_input")
@pytest.mark.parametrize("way", ODD)
def test_an_odd_compiler_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str) -> None:
    script, why = ODD[way]
    known = {"folder": tmp_path, "real": COMPILER, "compiler": tmp_path / "odd"}
    find = 'for word; do case "$last" in -o) made="$word";; esac; last="$word"; done\n'
    monkeypatch.setenv("CC", _compiler_script(tmp_path / "odd", find + script.format(**known)))
    monkeypatch.setattr(build, "_PATIENCE", 1 if way == "does not end" else 60)
    monkeypatch.setattr(build, "TARGETS", build.TARGETS[-1:])
    for _ in range(2):  # also with what is in the cache since
        reason = native.why_unavailable()
        assert reason is not None
        assert reason.startswith(f"{tmp_path}/odd could not build it: ")
        assert why.format(**known) in reason
        assert "\n" not in reason
        build._built.cache_clear()


@needs_compiler
def test_what_a_killed_build_left_is_removed_once_it_is_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "cache/hpsweep"
    with monkeypatch.context() as killing:
        killing.setenv("CC", _compiler_script(tmp_path / "killing", "kill -9 $PPID"))
        build_it = [sys.executable, "-c", "from hpsweep.proxy.native import why_unavailable; why_unavailable()"]
        assert [subprocess.run(build_it, check=False).returncode for _ in range(2)] == [-9, -9]
    old, new = cache.iterdir()
    os.utime(old, (time.time() - 3600,) * 2)
    assert native.why_unavailable() is None
    assert set(cache.iterdir()) == {new, *cache.glob("native-*.so")}


@needs_compiler
@pytest.mark.parametrize("size", [0, 10, 64, 1000, 0.5, 0.99])
def test_a_damaged_library_is_made_anew(tmp_path: Path, size: float) -> None:
    assert native.why_unavailable() is None
    (name,) = _built(tmp_path / "cache/hpsweep")
    path = tmp_path / "cache/hpsweep" / name
    whole = path.read_bytes()
    replaced = tmp_path / "damaged"  # the file in use stays as it is
    replaced.write_bytes(whole[: int(size * len(whole) if isinstance(size, float) else size)])
    replaced.replace(path)
    build._built.cache_clear()
    assert native.why_unavailable() is None
    assert path.read_bytes() == whole


@needs_compiler
def test_cc_names_the_compiler_and_targets_are_tried_until_one_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a machine whose compiler does not know -march=native."""
    unknown = 'case "$*" in *=native*) echo error: unknown >&2; exit 1;; esac'
    script = f'echo "$*" >> {tmp_path}/log\n{unknown}\nexec {COMPILER} "$@"'
    monkeypatch.setenv("CC", _compiler_script(tmp_path / "old", script))
    assert native.why_unavailable() is None
    asked = (tmp_path / "log").read_text().splitlines()
    assert len(asked) == len(build.TARGETS)
    assert [" ".join(target) in line for target, line in zip(build.TARGETS, asked, strict=True)] == [True] * len(asked)
    assert build.compiled_engine().native_lanes() == (4 if X86 else build.compiled_engine().native_lanes())


def test_a_cc_that_does_not_exist_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", f"{tmp_path}/cc -O1")
    assert native.why_unavailable() == f"CC={tmp_path}/cc -O1 was not found"
    for unusable in ("gcc 'no end", " "):
        build._built.cache_clear()
        monkeypatch.setenv("CC", unusable)
        assert native.why_unavailable() == f"CC={unusable} was not found"


@needs_compiler
def test_cc_may_have_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in CC="ccache gcc"."""
    cache = _compiler_script(tmp_path / "cache it", f'echo "$1" >> {tmp_path}/log\nexec "$@"')
    monkeypatch.setenv("CC", f"'{cache}' {COMPILER} -DASKED")
    assert native.why_unavailable() is None
    assert (tmp_path / "log").read_text().split() == shlex.split(str(COMPILER))[:1]


@needs_compiler
def test_a_system_that_refuses_tiles_gets_a_library_without(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = build.load_engine
    asked: list[int] = []

    def refusing(path: Path) -> object:
        library = loaded(path)
        asked.append(1)
        if len(asked) == 1:
            library.native_prepare_machine = lambda: 0
        return library

    monkeypatch.setattr(build, "load_engine", refusing)
    monkeypatch.setattr(build, "TARGETS", ((), ("-DSECOND",)))
    assert native.why_unavailable() is None
    assert len(asked) == 2
    build._built.cache_clear()
    asked.clear()
    monkeypatch.setattr(build, "TARGETS", (("-DONLY",),))
    assert str(native.why_unavailable()).endswith("the system does not let this process use -DONLY")


@needs_compiler
def test_a_library_is_kept_and_made_anew_when_a_source_the_flags_or_the_processor_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, folder = _sources(tmp_path / "sources", monkeypatch), tmp_path / "made"
    folder.mkdir()
    assert COMPILER is not None

    def made(*flags: str) -> Path:
        return build.compile_library([*QUICK, *flags], compiler=COMPILER, folder=folder, source=engine)

    first = made()
    stamp = first.stat().st_mtime_ns
    assert made() == first
    assert first.stat().st_mtime_ns == stamp
    header = engine.parent / "vectors.h"
    header.write_text(header.read_text() + "// changed\n")
    second = made()
    third = made("-DOTHER")
    monkeypatch.setattr(build, "_processor", lambda: "another")
    fourth = made("-DOTHER")
    assert len({first, second, third, fourth}) == 4
    assert _built(folder) == sorted(path.name for path in (first, second, third, fourth))


@needs_compiler
@pytest.mark.parametrize("home", ["file", "proc", "none"])
def test_without_a_home_to_write_to_the_library_is_kept_among_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home == "file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    elif home == "proc":
        if not Path("/proc/self").exists():
            pytest.skip("a folder nobody can write to")
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    else:

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
    assert native.why_unavailable() is None
    folder = tmp_path / "temporary" / f"hpsweep-{os.getuid()}"
    assert len(_built(folder)) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    build._built.cache_clear()
    monkeypatch.setattr(build.os, "getuid", lambda: 12345, raising=True)
    (tmp_path / "temporary/hpsweep-12345").mkdir()
    assert "belongs to another user; set XDG_CACHE_HOME" in str(native.why_unavailable())


@needs_compiler
def test_a_cache_that_cannot_be_written_to_is_not_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = build.tempfile.TemporaryFile
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path / "temporary"))

    def refused(*, dir: Path) -> object:  # patched, as root may write anywhere
        if not dir.is_relative_to(tmp_path / "temporary"):
            raise PermissionError(f"{dir} is read-only")
        return real(dir=dir)

    monkeypatch.setattr(build.tempfile, "TemporaryFile", refused)
    assert native.why_unavailable() is None
    assert _built(tmp_path / "cache/hpsweep") == []


@needs_compiler
@pytest.mark.parametrize("what", ["nothing may run there", "no room"])
def test_a_cache_that_no_library_can_be_kept_in_and_run_from_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    cache, real = tmp_path / "cache/hpsweep", build.tempfile.TemporaryFile
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(build.os, "ST_NOEXEC", 8, raising=False)
    if what == "no room":
        if not Path("/dev/full").exists():
            pytest.skip("only Linux has a file that is always full")
        full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 # build.py closes it
        monkeypatch.setattr(build.tempfile, "TemporaryFile", lambda dir: full if dir == cache else real(dir=dir))
    else:
        monkeypatch.setattr(build.os, "statvfs", lambda path: SimpleNamespace(f_flag=8 if path == cache else 0))
    assert native.why_unavailable() is None
    assert _built(cache) == []
    assert len(_built(tmp_path / f"temporary/hpsweep-{os.getuid()}")) == 1


def test_a_linker_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where its memory or the disk is full."""
    linker = "echo /usr/bin/ld: final link failed: No space left >&2\necho collect2: error: ld returned 1 >&2\nexit 1"
    compiler = _compiler_script(tmp_path / "full", linker)
    monkeypatch.setenv("CC", compiler)
    assert native.why_unavailable() == f"{compiler} could not build it: /usr/bin/ld: final link failed: No space left"


def test_a_compiler_that_does_not_end_is_tried_once_and_ends_with_all_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = _compiler_script(
        tmp_path / "hangs", f"echo $$ >> {tmp_path}/log\nsleep 600 &\necho $! >> {tmp_path}/log\nwait"
    )
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(build, "_PATIENCE", 2)
    assert native.why_unavailable() == f"{compiler} could not build it: {compiler} was not done after 2 s"
    asked = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(asked) == 2
    fake.wait_for(lambda: not any(fake.is_alive(process) for process in asked))


@needs_compiler
def test_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert native.why_unavailable() is None
    (name,) = _built(tmp_path / ".cache/hpsweep")
    assert name.startswith("native-")


@needs_compiler
def test_processes_that_build_at_once_all_get_the_library(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hpsweep.proxy.native import build\n"
        "print('ready', flush=True); sys.stdin.read(1)\n"
        f"path = build.compile_library({QUICK!r}, compiler={COMPILER!r}, folder=Path({str(tmp_path)!r}))\n"
        "print(build.load_engine(path).native_lanes(), path)"
    )
    words, pipes = [sys.executable, "-c", program], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    builders = [processes.start(words, **pipes) for _ in range(3)]
    for process in builders:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in builders:  # each waits for its letter, so that all begin together
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    answers = {process.communicate()[0] for process in builders}
    assert len(answers) == 1
    assert len(_built(tmp_path)) == 1


# --- a library that another user could have planted ---

OTHER = 12345  # a user that this machine need not know
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


def _planted(folder: Path) -> Path:
    """The folder with a library that is named as the engine's would be; loaded, it leaves a mark."""
    assert COMPILER is not None
    cache = folder / "hpsweep"
    cache.mkdir(parents=True, exist_ok=True)
    honest = build.compile_library([*build.FLAGS, *build.TARGETS[-1]], compiler=COMPILER, folder=cache)
    key = honest.name.split("-")[1]
    honest.unlink()
    mark = cache.parents[1] / "planted was loaded"
    source = cache / "planted.c"
    source.write_text(f'#include <stdio.h>\n__attribute__((constructor)) void mark(void) {{ fopen("{mark}", "w"); }}\n')
    made = cache / "planted.so"
    subprocess.run([*shlex.split(COMPILER), "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
    source.unlink()
    made.chmod(0o755)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()[:16]
    return made.replace(cache / f"native-{key}-{digest}.so")


def _owned(path: Path) -> None:
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def _linked(home: Path, library: Path) -> None:
    """The cache is a link of another user's to a folder of another user's."""
    moved = home.parent / "elsewhere"
    library.parent.rename(moved)
    _owned(moved)
    library.parent.symlink_to(moved)
    _owned(library.parent)


def _library_is_a_link(home: Path, library: Path) -> None:
    library.rename(home.parent / "elsewhere.so")
    library.symlink_to(home.parent / "elsewhere.so")


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "the library is another user's": lambda home, library: _owned(library),
    "the library is writable for its group": lambda home, library: library.chmod(0o775),
    "the library is writable for all": lambda home, library: library.chmod(0o757),
    "the library is a link": _library_is_a_link,
    "the library is a pipe": lambda home, library: (library.unlink(), os.mkfifo(library)),
    "the folder is another user's": lambda home, library: _owned(library.parent),
    "the folder is writable for its group": lambda home, library: library.parent.chmod(0o770),
    "the folder is writable for all": lambda home, library: library.parent.chmod(0o777),
    "the folder is for all, as /tmp": lambda home, library: library.parent.chmod(0o1777),
    "the folder above is another user's": lambda home, library: _owned(home),
    "the folder above is writable for all": lambda home, library: home.chmod(0o777),
    "the folder is a link of another user's": _linked,
}


@needs_compiler
@pytest.mark.parametrize("way", PLANTED)
def test_a_library_that_another_user_could_have_planted_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    if "another user's" in way and os.getuid() != 0:
        pytest.skip("only root can give files to another user")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(build, "TARGETS", build.TARGETS[-1:])
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    library = _planted(home)
    PLANTED[way](home, library)
    assert native.why_unavailable() is None
    assert not (tmp_path / "planted was loaded").exists()
    assert {row["engine"] for row in train([TINY]).rows} == {"native"}


@needs_compiler
def test_the_planted_library_would_have_been_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of this user's own, in a folder of this user's own, it is loaded: the test above can fail."""
    monkeypatch.setattr(build, "TARGETS", build.TARGETS[-1:])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    _planted(tmp_path / "home").parent.chmod(0o700)
    assert native.why_unavailable() is not None
    assert (tmp_path / "planted was loaded").exists()


@needs_compiler
@needs_root
def test_without_any_folder_of_its_own_the_engine_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path))
    for folder in (tmp_path / "cache", tmp_path / f"hpsweep-{os.getuid()}"):
        folder.mkdir()
        _owned(folder)
    why = str(native.why_unavailable())
    assert f"hpsweep-{os.getuid()} belongs to another user; set XDG_CACHE_HOME to a folder of yours" in why
    assert {row["engine"] for row in train([TINY]).rows} == {"torch"}


@needs_compiler
def test_a_generous_umask_makes_no_library_that_others_may_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert native.why_unavailable() is None
    finally:
        os.umask(before)
    cache = tmp_path / "cache/hpsweep"
    (library,) = cache.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (library, cache, cache.parent)] == [0o700] * 3
    stamp = library.stat().st_mtime_ns
    build._built.cache_clear()
    assert native.why_unavailable() is None
    assert library.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_sources_compile_without_a_warning(compiler: str, target: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    flags = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
    flags += ["-Wall", "-Wextra", "-Werror", *TARGETS[target]]
    build.compile_library(flags, compiler=compiler, folder=tmp_path)
