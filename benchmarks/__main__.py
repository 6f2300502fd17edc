"""Run every benchmark in turn: python -m benchmarks."""

from benchmarks import overhead, throughput

for benchmark in (throughput, overhead):
    print(f"\n## {benchmark.__name__}\n", flush=True)
    benchmark.main()
