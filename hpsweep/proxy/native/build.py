"""The native engine's shared library, compiled on first use by the machine's own C compiler and kept in a cache.

Plain C in the compiler's vector extensions: one translation unit, about two seconds of `cc`. The file's name holds a
hash of sources, command and processor, so that a home folder shared by different machines keeps one library for each,
and one of its contents, so that a damaged file is made anew and not loaded. `cache.py` says which files may be loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hpsweep.proxy.native.cache import cache_folder, open_library

SOURCES = Path(__file__).parent
ENGINE = SOURCES / "engine.c"
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
TARGETS = (("-march=native",), ("-march=native", "-mno-amx-bf16"), ("-mcpu=native",), ())
"""Tried in this order until one compiles and may run: clang on Arm knows only -mcpu, and a kernel can refuse tiles."""

_PATIENCE = 300  # seconds for a compiler that takes two
_UNFINISHED = "building-"


def compiled_engine(source: Path = ENGINE, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The compiled engine for this processor. Raises RuntimeError, in one line, where there is none.

    `source`: perhaps a file that includes engine.c and adds to it; `flags`: for the compiler, besides FLAGS.
    """
    built = _built(source, flags)
    if isinstance(built, str):
        raise RuntimeError(built)
    return built


def why_unavailable() -> str | None:
    """Why the native engine cannot serve on this machine, in one line; None if it can. Builds it if need be."""
    built = _built()
    if isinstance(built, str):
        return built
    return None


@functools.cache
def _built(source: Path = ENGINE, flags: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library, or why there is none: asked once per process, and a compiler that fails is not tried again."""
    compiler = find_compiler()
    if compiler is None:
        asked = os.environ.get("CC")
        if asked:
            return f"CC={asked} was not found"
        return "no C compiler (cc, gcc or clang) was found"
    reasons = []
    for target in TARGETS:
        try:
            library = load_engine(compile_library([*FLAGS, *target, *flags], compiler=compiler, source=source))
        except (OSError, RuntimeError, AttributeError) as error:  # what was made is no library, or another
            reasons.append(str(error))
            if isinstance(error, TimeoutError):  # the others would take as long
                break
            continue
        if library.native_prepare_machine():
            return library
        reasons.append(f"the system does not let this process use {' '.join(target)}")
    return f"{compiler} could not build it: {reasons[0]}"


def compile_library(flags: Sequence[str], *, compiler: str, folder: Path | None = None, source: Path = ENGINE) -> Path:
    """The library for these flags, from the cache or freshly made.

    Raises RuntimeError with the first error, TimeoutError if the compiler does not come to an end.

    `compiler`: a command, perhaps with arguments. `source`: what is compiled; the tests' own file includes engine.c.
    """
    sources = sorted({*SOURCES.glob("*.[ch]"), source})
    digest = hashlib.sha256("\0".join([compiler, *flags, _processor()]).encode())
    for file in sources:
        digest.update(file.read_bytes())
    folder = folder or cache_folder()
    key = digest.hexdigest()[:16]
    for path in folder.glob(f"native-{key}-*.so"):
        if path.name == _name(key, path):
            return path
    _clear(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_UNFINISHED) as scratch:
        made = Path(scratch, "native.so")
        _run([*shlex.split(compiler), *flags, f"-I{SOURCES}", str(source), "-o", str(made), "-lm"], compiler)
        if not made.exists():
            raise RuntimeError(f"{compiler} wrote no library")
        made.chmod(0o700)  # whatever the umask: what others may write is not loaded
        name = _name(key, made)
        if name is None:
            raise RuntimeError(f"{made} was changed by another user while it was made")
        return made.replace(folder / name)  # whole or not at all, whoever else builds it


def _clear(folder: Path) -> None:
    """Remove what builds have left that were killed midway."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):  # that build came to its end, or the next one tries again
            if time.time() - path.stat().st_mtime > 2 * _PATIENCE:
                shutil.rmtree(path)


def _name(key: str, library: Path) -> str | None:
    """What a library of this content is named; None for one that others may have written."""
    try:
        file = os.fdopen(open_library(library), "rb")
    except OSError:
        return None
    with file:
        return f"native-{key}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.so"


def _run(command: Sequence[str], compiler: str) -> None:
    """Compile. Raises RuntimeError with the compiler's first error, TimeoutError if it does not come to an end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            _, said = process.communicate(timeout=_PATIENCE)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # what the compiler has started too
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"{compiler} was not done after {_PATIENCE} s") from None
            raise
    if process.returncode:
        lines = said.splitlines()  # the last of them says that the linker failed, which has said why
        errors = [line for line in lines if "error" in line and not line.startswith("collect2")] or lines
        if errors:
            raise RuntimeError(errors[0])
        raise RuntimeError(f"{compiler} failed with exit status {process.returncode}")


def load_engine(path: Path) -> ctypes.CDLL:
    """A compiled engine with the types of its functions. Raises OSError for one that others may have written.

    The file that was checked is the one that is loaded, by its descriptor where the system has a path for that. It
    stays open: the loader knows libraries by their paths, and would take the next file of that number for this one.
    """
    descriptor = open_library(path)
    opened = Path(f"/proc/self/fd/{descriptor}")
    if opened.exists():
        path = opened
    engine = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    whole = ctypes.c_long
    real = ctypes.c_double
    engine.native_half_unit.restype = ctypes.c_char_p
    engine.native_scratch_floats.argtypes = [pointer]
    engine.native_scratch_floats.restype = whole
    engine.native_size_of_model.restype = whole
    engine.native_size_of_block.restype = whole
    engine.native_evaluate.argtypes = [pointer, pointer, ctypes.c_int, pointer]
    engine.native_evaluate.restype = None
    engine.native_gradients.argtypes = [pointer, pointer, pointer]
    engine.native_gradients.restype = real
    engine.native_update.argtypes = [pointer, whole, ctypes.c_float]
    engine.native_update.restype = real
    engine.native_train.argtypes = [pointer, pointer, ctypes.c_int, whole, pointer, real, pointer, pointer]
    return engine


def find_compiler() -> str | None:
    """The command that compiles: CC, which may have arguments ("ccache gcc"), or the first that is there."""
    commands = ["cc", "gcc", "clang"]
    if os.environ.get("CC"):
        commands = [os.environ["CC"]]
    return next(filter(_is_there, commands), None)


def _is_there(command: str) -> bool:
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without an end
        return False
    return bool(words) and shutil.which(words[0]) is not None


def _processor() -> str:
    """What a library made for this processor depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has this file
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    return " ".join([platform.machine(), platform.processor(), *features])
