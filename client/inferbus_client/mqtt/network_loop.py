"""The network thread's loop: one thread owns the socket, reads it, writes it, and does what other threads ask for.

paho brings a loop of its own, in a thread that other threads wake with a system call for every message they publish.
Here they leave their wishes and wake the loop only if it sleeps; under load it never does. paho's documented calls for
external loops (`loop_read`, `loop_write`, `loop_misc`) do the protocol.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.sockets import acknowledge_at_once

log = logging.getLogger("inferbus.link")

#: Seconds between two looks at keepalive, and the longest that a request to stop goes unseen without a wake-up.
_TICK: Final = 0.25


class Feed(Protocol):
    """Somebody who always has more to publish: asked in the network thread whenever the socket takes more."""

    @property
    def ready(self) -> bool:
        """Whether `feed` would publish something now."""
        ...

    def feed(self) -> None:
        """Publish what is there, while the link has room."""
        ...

    def trim(self) -> None:
        """Let go of what there is no room for. Asked in every round, also while the connection takes nothing."""
        ...


class NetworkLoop:
    """Runs one connection at a time. `call` and `wake` may be used from any thread; `run` belongs to one."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._calls: deque[Callable[[], object]] = deque()
        self._sleeping = False
        self.feed: Feed | None = None

    def call(self, wish: Callable[[], object]) -> None:
        """Let the network thread do something, while connected: at once, or when it next is."""
        self._calls.append(wish)
        self.wake()

    def wake(self) -> None:
        """Make the loop look around. Costs a system call only if it sleeps."""
        # The loop says that it sleeps before it looks a last time, and we look only after we have left our wish: one
        # of the two sees the other.
        if self._sleeping:
            self._sleeping = False
            with suppress(OSError):  # full: it has been woken often enough; closed: there is nobody to wake
                self._writer.send(b"\0")

    def run(
        self,
        paho: PahoClient,
        until: Callable[[], bool],
        *,
        serving: Callable[[], bool],
        attend: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve a connection until it is lost or `until` says so.

        Args:
            paho: a client whose connection has been opened.
            until: asked after every round.
            serving: whether wishes and the feed may use the connection now.
            attend: called in every round, before it waits.
        """
        with selectors.DefaultSelector() as selector:
            connection = _Watched(selector, paho)
            selector.register(self._reader, selectors.EVENT_READ)
            next_misc = time.monotonic() + _TICK
            while not until():
                attend()
                if not connection.watch():
                    return
                readable = self._wait(selector, connection, serving)
                if readable and not _read(paho):
                    return
                self._serve(serving)
                if time.monotonic() >= next_misc:
                    next_misc = time.monotonic() + _TICK
                    if paho.loop_misc():
                        return
                if not paho.flush():
                    paho.loop_read()  # what the broker said before it closed, its reason perhaps
                    return

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def serve_last_wishes(self) -> None:
        """What was asked for before the end, and can still be done."""
        self._serve(lambda: True)

    def _wait(self, selector: selectors.BaseSelector, connection: _Watched, serving: Callable[[], bool]) -> bool:
        """Sleep until there is something to do; whether the connection has something to read."""
        self._sleeping = True
        feed = self.feed
        busy = serving() and (self._calls or (feed is not None and feed.ready)) and not connection.clogged
        events = selector.select(0 if busy or connection.pending else _TICK)
        self._sleeping = False
        readable = connection.pending
        for key, mask in events:
            if key.fileobj is self._reader:
                with suppress(BlockingIOError):
                    self._reader.recv(4096)
            elif mask & selectors.EVENT_READ:
                readable = True
        return readable

    def _serve(self, serving: Callable[[], bool]) -> None:
        while self._calls and serving():
            wish = self._calls.popleft()
            try:
                wish()
            except Exception:
                # Nothing that one of them asks for may end the thread that all of them share.
                log.exception("something that was asked of the network thread failed")
        if self.feed is not None:
            self.feed.trim()
            if serving():
                self.feed.feed()


class _Watched:
    """The connection's socket in the selector, with interest in writing only while something waits to be written."""

    def __init__(self, selector: selectors.BaseSelector, paho: PahoClient) -> None:
        self._selector = selector
        self._paho = paho
        self._socket: Any = None
        self._events = 0

    @property
    def clogged(self) -> bool:
        """Whether the socket takes no more for now."""
        return bool(self._events & selectors.EVENT_WRITE)

    @property
    def pending(self) -> bool:
        """Whether a TLS or WebSocket layer holds data that the system does not see."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and pending() > 0

    def watch(self) -> bool:
        """Keep the selector right; False where there is no connection any more."""
        connection = self._paho.socket()
        if connection is None:
            return False
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._paho.want_write() else 0)
        if connection is not self._socket:
            self._selector.register(connection, events)
        elif events != self._events:
            self._selector.modify(connection, events)
        self._socket, self._events = connection, events
        return True


def _read(paho: PahoClient) -> bool:
    """Handle what has arrived; False where that shows the connection lost."""
    if paho.loop_read():
        return False
    acknowledge_at_once(paho.socket())
    return True
