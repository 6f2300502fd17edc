"""Run benchmarks by name: python -m benchmarks [NAME ...]; without a name, throughput alone, as `make bench` does."""

import importlib
import sys

names, sys.argv[1:] = sys.argv[1:] or ["throughput"], []
for name in names:
    print(f"\n## {name}\n", flush=True)
    importlib.import_module(f"benchmarks.{name}").main()
