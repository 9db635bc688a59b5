"""The stop times of the worker's rooms fit into what promise 4 leaves for them."""

from __future__ import annotations

from inferbus_worker import daemon
from inferbus_worker.bus import attempts


def test_the_steps_of_a_shutdown_fit_into_the_grace() -> None:
    """Each takes its whole time where something hangs; the guard must not end the process before the last of them."""
    steps = (daemon._JOIN, daemon._FLUSH, daemon._DISCONNECT, attempts._CLOSE, daemon._ENGINE_STOP)
    assert sum(steps) <= daemon._GRACE
    assert daemon._GRACE < 2
