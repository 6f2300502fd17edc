"""Run every benchmark in turn: python -m benchmarks."""

from benchmarks import coverage, law, overhead, throughput

for benchmark in (throughput, overhead, coverage, law):
    print(f"\n## {benchmark.__name__}\n", flush=True)
    benchmark.main()
