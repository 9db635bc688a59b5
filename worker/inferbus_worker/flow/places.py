"""What a request is taken from the queue with: a place where it runs."""

from __future__ import annotations

import sys
from typing import Protocol

from inferbus_worker.flow.job import Job


class Places(Protocol):
    """Where requests run. Called under the queue's lock: nothing here waits."""

    def has_free(self, model: str) -> bool:
        """Whether a request for this model could be taken now."""
        ...

    def free(self, model: str) -> int:
        """How many requests for this model could be taken now, about."""
        ...

    def acquire(self, job: Job) -> bool:
        """Give the request a place of its model's (`Job.lease`); False where there is none for it now."""
        ...


class Everywhere:
    """Places without number."""

    def has_free(self, model: str) -> bool:  # noqa: ARG002
        return True

    def free(self, model: str) -> int:  # noqa: ARG002
        return sys.maxsize

    def acquire(self, job: Job) -> bool:  # noqa: ARG002
        return True
