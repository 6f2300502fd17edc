"""Run every benchmark in turn: python -m benchmarks."""

from benchmarks import coverage, overhead, throughput

for benchmark in (throughput, overhead, coverage):
    print(f"\n## {benchmark.__name__}\n", flush=True)
    benchmark.main()
