"""Run every benchmark in turn: python -m benchmarks."""

from benchmarks import coverage, law, overhead, scale, surface, throughput

for benchmark in (throughput, overhead, scale, coverage, law, surface):
    print(f"\n## {benchmark.__name__}\n", flush=True)
    benchmark.main()
