"""The requests between admission and terminal reply: found by session to cancel them, counted to drain."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final

from inferbus_worker.flow.job import Job
from inferbus_worker.state.keys import SessionKey

_LOOK: Final = 0.005


class InFlight:
    """Any thread may use it."""

    def __init__(self) -> None:
        # Each dictionary is its session's jobs in their order: one, but for a moment in which a claim has gone on,
        # and any number that claim nothing.
        self._jobs: dict[SessionKey, dict[Job, None]] = {}
        self._count = 0
        self._forms: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, job: Job) -> None:
        with self._lock:
            self._jobs.setdefault(job.key.in_topics, {})[job] = None
            self._count += 1
            self._forms[job.model] += job.request.has_form

    def remove(self, job: Job) -> None:
        with self._lock:
            jobs = self._jobs.get(job.key.in_topics, {})
            if job not in jobs:
                return
            del jobs[job]
            if not jobs:
                del self._jobs[job.key.in_topics]
            self._count -= 1
            self._forms[job.model] -= job.request.has_form

    def forms(self, model: str) -> int:
        """A model's whose answer must keep to a given form."""
        return self._forms[model]

    def moved(self, job: Job, model: str) -> None:
        """Another model stands in for the job's."""
        with self._lock:
            if job in self._jobs.get(job.key.in_topics, {}):
                self._forms[job.model] -= job.request.has_form
                self._forms[model] += job.request.has_form
            job.model = model

    def of(self, key: SessionKey) -> list[Job]:
        """The jobs of a session, oldest first; a gateway's for all of its clients."""
        with self._lock:
            return list(self._jobs.get(key.in_topics, ()))

    def all(self) -> list[Job]:
        with self._lock:
            return [job for jobs in self._jobs.values() for job in jobs]

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is in flight; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # Looked at again and again: only a shutdown waits, and to notify it would cost every request.
        while self._count and time.monotonic() < deadline:
            time.sleep(_LOOK)
        return not self._count
