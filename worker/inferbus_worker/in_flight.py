"""The requests between admission and terminal reply: found by session to cancel them, counted to drain."""

from __future__ import annotations

import threading

from inferbus_worker.job import Job
from inferbus_worker.sessions import SessionKey


class InFlight:
    """At most one job per session, since a job holds its session's claim."""

    def __init__(self) -> None:
        self._jobs: dict[SessionKey, Job] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        with self._changed:
            self._jobs[job.key] = job

    def remove(self, job: Job) -> None:
        with self._changed:
            # The session may have been claimed anew already; only this very job goes.
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]
            if not self._jobs:
                self._changed.notify_all()

    def of(self, key: SessionKey) -> Job | None:
        return self._jobs.get(key)

    def all(self) -> list[Job]:
        with self._changed:
            return list(self._jobs.values())

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is in flight; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout)
