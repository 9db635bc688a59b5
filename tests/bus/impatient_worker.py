"""`inferbus`, whose idle threads go after a second."""

from __future__ import annotations

import functools
import runpy

from inferbus_worker import wiring
from inferbus_worker.flow.worker_pool import WorkerPool

if __name__ == "__main__":
    wiring.WorkerPool = functools.partial(WorkerPool, idle=1.0)  # type: ignore[attr-defined, assignment]
    runpy.run_module("inferbus_worker.demo.lifeline", run_name="__main__")
