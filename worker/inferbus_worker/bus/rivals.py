"""Two workers of one id: the one that was started first stays, the other ends and says why.

A broker keeps one connection of a client id and closes the older one, mostly without a word, so two workers of one id
would throw each other out for ever. They cannot ask each other, but both write the same retained presence, and read it:
there each finds the other's word or Last Will, with the instance that it comes from.

What stands there may be left over from a run that has ended long ago, and even come back after our own (a broker that
crashed and restored an older state); and where a broker has no access rules anyone may have written it. So words alone
end nobody. An instance counts as a rival only when it has made a connection while we lost one that we had just made:
that is how two of one id throw each other out, and nobody brings it about by publishing.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from inferbus_client.contract.presence import Instance
from inferbus_worker.seldom import Seldom

log = logging.getLogger("inferbus.rivals")

#: Seconds that a connection of ours lasts at most where a rival takes it: he has just lost his, and comes back at once.
_SHORT: Final = 5.0
#: Other instances that are remembered; two are usual, and anyone who may write our presence can make up more.
_MAX_OTHERS: Final = 16


def new_instance() -> Instance:
    """This run, before its first connection."""
    return Instance(mark=uuid.uuid4().hex, started=round(time.time(), 3), host=socket.gethostname(), pid=os.getpid())


class _Other(NamedTuple):
    """The latest connection of another instance that we heard of, and which of ours we had then."""

    connection: int
    ours: int


class Rivals:
    """What our own presence topic has told of other instances. For the network thread alone."""

    def __init__(self, worker: str, instance: Instance, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._me = instance
        self._clock = clock
        self._seldom = Seldom(log, clock=clock)
        self._others: dict[str, _Other] = {}
        self._connection, self._since, self._lasted = 0, clock(), math.inf
        self._hears_itself = False
        self._saw_later = False

    def heard(self, said: Instance, connection: int) -> str | None:
        """An instance has announced itself, or been announced by its Last Will, under our worker id.

        Args:
            said: the instance; ours as well, since we hear ourselves.
            connection: which of our connections this is, from 1.

        Returns:
            Why we have to go, if an earlier instance lives; else None.
        """
        self._note(connection)
        if said.mark == self._me.mark:
            self._hears_itself = True
            return None
        before = self._others.get(said.mark)
        if before is None or before.connection < said.connection:
            self._remember(said.mark, _Other(said.connection, connection))
        if self._me.precedes(said):
            self._saw_later = True
            if before is None and connection > 1:
                self._seldom.warning(
                    "another worker has the id %r and will have to end: %s", self._worker, in_words(said)
                )
            return None
        came_back = before is not None and before.connection < said.connection and before.ours < connection
        if not came_back or not self._just_thrown_out():
            return None
        who = f"another worker already has the id {self._worker!r}: {in_words(said)}"
        return f"{who}; start this one with another --worker-id"

    def hold_out(self, flapping: bool) -> bool:  # noqa: FBT001 - what `Link` asks
        """Whether to come back to a broker that has given our connection to somebody else.

        Once: to see who it is, where we can read our presence. Again and again: only while the others are later ones,
        whose part it is to go.
        """
        if not flapping:
            return self._hears_itself
        later, self._saw_later = self._saw_later, False
        return later

    def _note(self, connection: int) -> None:
        """When each of our connections began: about when something is first heard on it."""
        if connection != self._connection:
            now = self._clock()
            self._lasted = now - self._since
            self._connection, self._since = connection, now

    def _just_thrown_out(self) -> bool:
        """Whether we have just lost a connection that we had just made."""
        return self._lasted < _SHORT and self._clock() - self._since < _SHORT

    def _remember(self, mark: str, other: _Other) -> None:
        if mark not in self._others and len(self._others) >= _MAX_OTHERS:
            self._others.clear()
        self._others[mark] = other


def in_words(instance: Instance) -> str:
    """When and where a run was started, for a sentence."""
    started = datetime.fromtimestamp(instance.started, UTC)
    # Of the host's name only what is printable: it comes from the bus, and goes to the log.
    where = "" if instance.host is None else f" on {instance.host!r}"
    process = "" if instance.pid is None else f", process {instance.pid}"
    return f"started {started:%Y-%m-%d %H:%M:%S} UTC{where}{process}"
