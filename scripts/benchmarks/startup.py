"""How long a user waits for the client's import, and for a worker that is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from .figures import Section, Spread
from .plan import Plan
from .processes import broker, simulated_worker

_START_SECONDS: Final = 60.0
_TRIES: Final = 5

_PYTHON: Final = {
    "python that does nothing": "pass",
    "and `import inferbus_client`": "import inferbus_client",
    "and `from inferbus_client import Client`": "from inferbus_client import Client",
}
_SERVE: Final = "`inferbus serve --engine simulated` to ready"


def measure(plan: Plan) -> list[Section]:
    """Wall time of fresh processes.

    Raises:
        ProcessFailedError: broker or worker does not come up.
    """
    found: dict[str, list[float]] = {name: [] for name in (*_PYTHON, _SERVE)}
    with broker() as port:
        for _ in plan.rounds_of("startup"):
            for _ in range(_TRIES):
                for name, code in _PYTHON.items():
                    found[name].append(_python(code))
                with simulated_worker(port) as worker:
                    found[_SERVE].append(worker.wait_for("ready:", _START_SECONDS))
    return [_section(found)]


def _python(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=_START_SECONDS)
    return time.perf_counter() - began


def _section(found: dict[str, list[float]]) -> Section:
    return Section(
        suite="startup",
        title="Start-up",
        method=[
            f"Wall time of fresh processes, {_TRIES} of each in a round, in turns; the file cache is warm.",
            "`ready` is the worker's own word, after it has connected, subscribed and had one answer from its engine.",
        ],
        header=["what", "seconds"],
        rows=[[name, Spread.of(seconds).text(3)] for name, seconds in found.items()],
    )
