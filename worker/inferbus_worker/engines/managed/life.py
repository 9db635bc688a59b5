"""A server from the moment when it is wanted until it is not: starts it, and starts it again whenever it ends."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from inferbus_worker.engines.base import Engine, EngineStartError, InvalidCallError
from inferbus_worker.engines.managed.backoff import Backoff
from inferbus_worker.engines.managed.commands import HOST, Command
from inferbus_worker.engines.managed.server import Server, free_port
from inferbus_worker.engines.watchdog import probe
from inferbus_worker.seldom import Seldom

State = Literal["stopped", "starting", "ready", "failed"]

STOPPED: Final = "The server was stopped while it started."
#: Ports to try, where another program is quicker than the server.
_PORTS: Final = 5
#: Seconds between looks at a server that comes up.
_LOOK_INTERVAL: Final = 0.1
#: Seconds between questions to one that listens and does not answer well.
_ASK_INTERVAL: Final = 0.5
_CONNECT_TIMEOUT: Final = 1.0
#: Of the time to stop, what the connections to the server may take.
_HANG_UP: Final = 0.5
_COMPLAIN_EVERY: Final = 60.0

log = logging.getLogger("inferbus.managed")


class Life:
    """One thread, `slot-start NAME`, from `begin` to `stop`.

    Args:
        name: the slot's.
        command: what starts the server at a port; may raise `EngineStartError`.
        make: an engine that speaks to a server at a URL.
        start_timeout: seconds until a server that was started must have answered.
        changed: told of every change of `state`, in that thread.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Command],
        make: Callable[[str], Engine],
        start_timeout: float,
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._command = command
        self._make = make
        self._start_timeout = start_timeout
        self._changed = changed
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # no server is started once `stop` has looked for one
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._live, name=f"slot-start {name}", daemon=True)
        self._complaints = Seldom(log, every=_COMPLAIN_EVERY)
        self.state: State = "starting"
        #: Why it is not ready, in a sentence for the operator.
        self.trouble: str | None = None
        #: When it is started again where that has failed, in monotonic seconds.
        self.again_at = 0.0
        #: What its processes held of the host's memory when it was ready.
        self.memory_after_load: int | None = None
        #: While it is ready.
        self.inner: Engine | None = None
        #: Set when the first start has come to its end, whatever that is.
        self.first_try = threading.Event()

    def begin(self) -> None:
        """Start the server, and see to it from now on; returns at once."""
        self._thread.start()

    @property
    def memory_bytes(self) -> int | None:
        return None if self._server is None else self._server.memory_bytes

    def end_server(self) -> None:
        """End the server, of which no more is to be expected; it is then started again."""
        if self._server is not None:
            self._server.kill()

    def stop(self, timeout: float) -> None:
        """End the server, or its start, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping.set()
        if self.inner is not None:
            self.inner.stop(min(_HANG_UP, timeout / 2))
        if self._server is not None:
            self._server.stop(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._thread.join(max(_LOOK_INTERVAL, deadline - time.monotonic()))
        self._is("stopped")

    # From here on: its own thread.

    def _live(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            ready_at = None
            try:
                server = self._bring_up()
                ready_at = time.monotonic()
                server.ended.wait()
                why = f"The server of {self._name} is gone: {server.ending}."
            except EngineStartError as error:
                why = str(error)
            except Exception:  # whatever it was, it is tried again
                log.exception("%s: its server did not start", self._name)
                why = f"The server of {self._name} did not start."
            self._leave()
            if self._stopping.is_set():
                why = STOPPED
            pause = backoff.after(0.0 if ready_at is None else time.monotonic() - ready_at)
            self.again_at = time.monotonic() + pause
            self._is("failed", why)
            self.first_try.set()
            if not self._stopping.is_set():
                self._complaints.warning("%s It is started again in %.0f s", why, pause)
            self._stopping.wait(pause)
            self._is("starting")

    def _is(self, state: State, trouble: str | None = None) -> None:
        if self._stopping.is_set():
            state = "stopped"
        if state != "starting":
            self.trouble = trouble
        if state != self.state:
            self.state = state
            self._changed()

    def _bring_up(self) -> Server:
        """A server that answers.

        Raises:
            EngineStartError: there is none, and why.
        """
        deadline = time.monotonic() + self._start_timeout
        for _ in range(_PORTS):
            began = time.monotonic()
            server = self._start_server()
            try:
                self.inner = self._first_answer(server, deadline)
            except EngineStartError:
                server.stop(_HANG_UP * 4)
                if server.output.says_in_use and not self._stopping.is_set():
                    continue
                raise
            server.output.serves()
            self.memory_after_load = server.memory_bytes
            log.info("%s: its server is ready at %s, after %.1f s", self._name, server.url, time.monotonic() - began)
            self._is("ready")
            self.first_try.set()
            return server
        raise EngineStartError(f"The server of {self._name} finds each of {_PORTS} ports in use.")

    def _start_server(self) -> Server:
        port = free_port()
        server = Server(self._command(port), port, self._name)
        with self._lock:
            if self._stopping.is_set():
                raise EngineStartError(STOPPED)
            server.start()
            self._server = server
        return server

    def _first_answer(self, server: Server, deadline: float) -> Engine:
        """An engine for a server that has answered with one token.

        Raises:
            EngineStartError: it never will.
        """
        inner: Engine | None = None
        said = "nothing listens at its port"
        while not self._stopping.is_set() and not server.ended.is_set() and time.monotonic() < deadline:
            if inner is None and _listens(server.port):
                inner, said = self._speak_to(server)
            error = None if inner is None else probe(inner, deadline - time.monotonic())
            if inner is not None and error is None:
                return inner
            if isinstance(error, InvalidCallError):
                said = str(error)
                break
            said = said if error is None else str(error) or type(error).__name__
            server.ended.wait(_LOOK_INTERVAL if inner is None else _ASK_INTERVAL)
        if inner is not None:
            inner.stop(_HANG_UP)
        if self._stopping.is_set():
            raise EngineStartError(STOPPED)
        if server.ended.is_set():
            words = server.output.last_words
            raise EngineStartError(
                f"The server of {self._name} did not start: {server.ending}{words and f', after: {words}'}."
            )
        late = f" within {self._start_timeout:g} s" if time.monotonic() >= deadline else ""
        raise EngineStartError(f"The server of {self._name} gave no answer{late}: {said}.")

    def _speak_to(self, server: Server) -> tuple[Engine | None, str]:
        inner = self._make(server.url)
        try:
            inner.start()
        except EngineStartError as error:
            inner.stop(_HANG_UP)
            return None, str(error).rstrip(".")
        return inner, ""

    def _leave(self) -> None:
        """Take leave of a server that is gone: what was under way fails."""
        inner, self.inner = self.inner, None
        if inner is not None:
            inner.stop(_HANG_UP)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True
