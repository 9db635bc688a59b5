"""The queue alone, with a clock that stands still, and jobs of any project and owner."""

from __future__ import annotations

from typing import Any

from inferbus_client.contract.wire import Request
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.stream import Backlog, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.sessions import MemorySessions
from support.rooms import FakeClock


class Line:
    """A queue with a clock, and jobs made from a project's name and, where it matters, their owner's.

    With `users` the owner stands in the topic; else the requests name it as their `clientId`.
    """

    def __init__(
        self, size: int = 1000, *, ageing: float = 5.0, users: bool = False, **projects: dict[str, Any]
    ) -> None:
        self.clock = FakeClock()
        settings = {name: ProjectSettings(**fields) for name, fields in projects.items()}
        self.queue = RequestQueue(size, settings, ageing=ageing, clock=self.clock)
        self._users = users
        self._sessions = MemorySessions(10_000, 60)
        self._made = 0

    def job(self, project: str, deadline: float | None = None, owner: str | None = None) -> Job:
        self._made += 1
        key = SessionKey(project, f"s{self._made}", owner if self._users else None)
        claim = self._sessions.claim(key)
        assert claim is not None
        return Job(
            request=Request(message=f"{project} {self._made}", client_id=None if self._users else owner),
            key=key,
            claim=claim,
            replies=ReplyStream(ReplyAddress("t", "r", key.session), lambda _: None, Backlog()),
            admitted_at=self.clock(),
            deadline=deadline,
            clock=self.clock,
        )

    def put(self, project: str, count: int = 1, deadline: float | None = None, owner: str | None = None) -> list[Job]:
        jobs = [self.job(project, deadline, owner) for _ in range(count)]
        for job in jobs:
            assert self.queue.position(project, owner) is not None
            self.queue.put(job)
        return jobs

    def fill(self, project: str, owner: str | None = None) -> int:
        """Put until there is no room; how many went in."""
        count = 0
        while self.queue.position(project, owner) is not None:
            self.put(project, owner=owner)
            count += 1
        return count

    def take(self, count: int) -> list[str]:
        """The projects of the next jobs."""
        taken = []
        for _ in range(count):
            job = self.queue.take()
            assert job is not None
            taken.append(job.key.project)
        return taken

    def take_owners(self, count: int) -> list[str | None]:
        """The owners of the next jobs."""
        return [self._owner(self.queue.take()) for _ in range(count)]

    def _owner(self, job: Job | None) -> str | None:
        assert job is not None
        return job.key.user if self._users else job.request.client_id
