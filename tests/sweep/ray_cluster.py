"""A Ray cluster for tests, as a process: prints its address, and lives until its input ends.

Arguments: CPUs, and GPUs, which Ray only counts.
"""

from __future__ import annotations

import sys
import tempfile

import ray

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # a short path
        context = ray.init(
            address="local",
            num_cpus=int(sys.argv[1]),
            num_gpus=int(sys.argv[2]),
            include_dashboard=False,
            _temp_dir=folder,
            object_store_memory=100_000_000,
            log_to_driver=False,
        )
        print(context.address_info["gcs_address"], flush=True)
        sys.stdin.read()
        ray.shutdown()
