"""An engine whose server the worker starts, watches and stops itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from inferbus_worker.engines.base import (
    CHARACTERS_PER_TOKEN,
    BackendError,
    ChatCall,
    Completion,
    Engine,
    EngineDeadError,
    EngineStartError,
    Generation,
    OnDelta,
)
from inferbus_worker.engines.managed.commands import Command, command_for, concurrency_of
from inferbus_worker.engines.managed.life import STOPPED, Life, State
from inferbus_worker.engines.pending import PendingGeneration
from inferbus_worker.settings.models import Manage, SlotSettings

#: While no server has said it: what the longest prompt and answer is taken for.
_CONTEXT_TOKENS: Final = 32768
#: Seconds that a server has to end that did not come up.
_STOP_TIMEOUT: Final = 10.0


class ManagedEngine:
    """See `engines.base.Engine`. It never dies: a server that ends is started again, until `stop`.

    Args:
        settings: a slot that `is_managed`.
        make: an engine that speaks to the server at a URL; its own `start` may fail as long as the server loads.
        name: the slot's, for the log and for threads.
        model: how we call the model; as the slot, where that is left out.
    """

    death: EngineDeadError | None = None

    def __init__(
        self, settings: SlotSettings, make: Callable[[str], Engine], name: str, *, model: str | None = None
    ) -> None:
        self._settings = settings
        self._make = make
        self._name = name
        self._model = model or name
        self._lock = threading.Lock()  # around `_life`
        self._life: Life | None = None
        self._last_known_context: int | None = None
        #: Told of every change of `state`, in a thread of its own; it notes and never waits.
        self.changed: Callable[[], None] = lambda: None

    # --- whether it is there ---

    @property
    def state(self) -> State:
        """`failed`: it has ended or did not come up, and is started again after a pause."""
        return "stopped" if self._life is None else self._life.state

    @property
    def trouble(self) -> str | None:
        """Why it is `failed`, in a sentence for the operator."""
        return None if self._life is None else self._life.trouble

    @property
    def again_at(self) -> float:
        """When its server is started again where that is `failed`, in monotonic seconds."""
        return 0.0 if self._life is None else self._life.again_at

    @property
    def memory_after_load(self) -> int | None:
        """What the server held of the host's memory when it was ready the last time; None before."""
        return None if self._life is None else self._life.memory_after_load

    def begin(self) -> None:
        """Have the server started, and started again whenever it ends; returns at once."""
        with self._lock:
            if self._life is not None and self._life.state != "stopped":
                return
            self._life = Life(
                self._name, self._command, self._make, (self._settings.manage or Manage()).start_timeout, self._tell
            )
            self._life.begin()
        self._tell()

    def start(self) -> None:
        """See `Engine.start`. A server that does not come up is given up."""
        self.begin()
        life = self._life
        if life is None:
            raise EngineStartError(STOPPED)
        life.first_try.wait()
        if life.state != "ready":
            trouble = life.trouble or STOPPED
            self.stop(_STOP_TIMEOUT)
            raise EngineStartError(trouble)

    def restart(self) -> None:
        """End a server of which no answer is to be expected, and have it started again."""
        if self._life is not None:
            self._life.end_server()

    def stop(self, timeout: float) -> None:
        """See `Engine.stop`. Also ends a start that is under way. It can be started again."""
        with self._lock:
            life = self._life
        if life is not None:
            life.stop(timeout)

    def _command(self, port: int) -> Command:
        return command_for(self._settings, self._model, port)

    def _tell(self) -> None:
        if (inner := self._inner) is not None:
            self._last_known_context = inner.context_tokens
        self.changed()

    # --- what it does while it is there ---

    @property
    def _inner(self) -> Engine | None:
        return None if self._life is None else self._life.inner

    @property
    def model(self) -> str:
        return self._model if (inner := self._inner) is None else inner.model

    @property
    def capacity(self) -> int:
        return concurrency_of(self._settings) if (inner := self._inner) is None else inner.capacity

    @property
    def context_tokens(self) -> int:
        if (inner := self._inner) is not None:
            return inner.context_tokens
        return self._settings.context or self._last_known_context or _CONTEXT_TOKENS

    @property
    def headroom(self) -> float | None:
        return None if (inner := self._inner) is None else inner.headroom

    @property
    def leaked(self) -> int:
        return 0 if (inner := self._inner) is None else inner.leaked

    @property
    def counts_exactly(self) -> bool:
        return False if (inner := self._inner) is None else inner.counts_exactly

    @property
    def memory_bytes(self) -> int | None:
        return None if self._life is None else self._life.memory_bytes

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> Generation:
        """See `Engine.generate`. Without a server it fails at once, as when the server ends: another may answer it."""
        inner = self._inner
        if inner is None:
            nobody = PendingGeneration(on_delta, None, lambda: None)
            nobody.fail(BackendError(f"the server of {self._name} is not there: {self.state}", "connection"))
            return nobody
        return _Generation(inner.generate(call, on_delta), self._name)

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`: an estimate, while there is no server to ask."""
        inner = self._inner
        return len(text) // CHARACTERS_PER_TOKEN + 1 if inner is None else inner.count_tokens(text)


class _Generation:
    """What the inner engine takes for its own death is that of one server: a later try may be answered."""

    def __init__(self, inner: Generation, name: str) -> None:
        self._inner = inner
        self._name = name

    def wait(self, deadline: float | None) -> Completion:
        """See `Generation.wait`."""
        try:
            return self._inner.wait(deadline)
        except EngineDeadError as error:
            raise BackendError(f"the server of {self._name} has ended", "connection") from error

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._inner.cancel()
