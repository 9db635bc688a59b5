"""The requests between admission and terminal reply: found by session to cancel them, counted to drain."""

from __future__ import annotations

import threading
import time
from typing import Final

from inferbus_worker.flow.job import Job
from inferbus_worker.state.memory.sessions import SessionKey

_LOOK: Final = 0.005


class InFlight:
    """At most one job per session, since a job holds its session's claim."""

    def __init__(self) -> None:
        self._jobs: dict[SessionKey, Job] = {}
        self._forms: set[Job] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.key] = job
            if job.request.has_form:
                self._forms.add(job)

    def remove(self, job: Job) -> None:
        with self._lock:
            self._forms.discard(job)
            # The session may have been claimed anew already; only this very job goes.
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]

    @property
    def forms(self) -> int:
        """Those whose answer must keep to a given form."""
        return len(self._forms)

    def of(self, key: SessionKey) -> Job | None:
        return self._jobs.get(key)

    def all(self) -> list[Job]:
        with self._lock:
            return list(self._jobs.values())

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is in flight; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # Looked at again and again: only a shutdown waits, and to notify it would cost every request.
        while self._jobs and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return not self._jobs
