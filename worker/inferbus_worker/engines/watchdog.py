"""Notices an engine that hangs: vLLM's own health check sees neither a stopped process nor a stuck one.

While turns are under way, one of them ends now and then. Where none has for `silence` seconds, one token is asked of
the engine: a long answer in a healthy batch does not delay that, a hang does. What compiles the grammars of answers in
a given form can hang while all others go on; so where such a turn was given up before its answer began, one token in a
given form is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from inferbus_worker.engines.base import BackendError, ChatCall, Engine, EngineError, InvalidCallError, Sampling

_HELLO: Final = [{"role": "user", "content": "Hello"}]
_PROBE: Final = ChatCall(_HELLO, Sampling(temperature=0, top_p=1, max_tokens=1))
_YES_OR_NO: Final = {"type": "json_schema", "json_schema": {"name": "probe", "schema": {"type": "boolean"}}}
#: The same in a given form: what compiles grammars may hang while the rest of the engine goes on.
PROBE_IN_FORM: Final = _PROBE._replace(sampling=_PROBE.sampling._replace(extra={"response_format": _YES_OR_NO}))


def probe(engine: Engine, timeout: float, call: ChatCall = _PROBE) -> EngineError | None:
    """Ask one token of the engine; None: it answered within `timeout` seconds."""
    try:
        engine.generate(call).wait(time.monotonic() + timeout)
    except EngineError as error:
        return error
    return None


class Watchdog:
    """Asked by the main thread again and again; never blocks it.

    Args:
        engine: what is watched.
        silence: seconds without a finished turn, then seconds for the probe.
        active: how many turns are under way.
        finished: how many have ended since the start.
        forms_given_up: how many, of answers in a given form, were given up before the answer began.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engine: Engine,
        silence: float,
        *,
        active: Callable[[], int],
        finished: Callable[[], int],
        forms_given_up: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._silence = silence
        self._active = active
        self._finished = finished
        self._forms_given_up = forms_given_up
        self._clock = clock
        self._last_finished = finished()
        self._last_given_up = forms_given_up()
        self._last_progress = clock()
        self._probe: threading.Thread | None = None
        self._found: str | None = None

    def complaint(self) -> str | None:
        """Why the engine must be given up; None while there is nothing to complain of."""
        if self._found is not None:
            return self._found
        finished, given_up = self._finished(), self._forms_given_up()
        if given_up != self._last_given_up and self._silence and self._start_probe(PROBE_IN_FORM):
            self._last_given_up = given_up
        if finished != self._last_finished or not self._active():
            self._last_finished, self._last_progress = finished, self._clock()
        elif self._silence and self._clock() - self._last_progress > self._silence:
            self._start_probe(_PROBE)
        return None

    def _start_probe(self, call: ChatCall) -> bool:
        """Whether it could start: one runs at a time."""
        if self._probe is not None and self._probe.is_alive():
            return False
        self._probe = threading.Thread(target=self._run_probe, args=(call,), name="engine-probe", daemon=True)
        self._probe.start()
        return True

    def _run_probe(self, call: ChatCall) -> None:
        # It ends by its own time limit; nobody has to stop it.
        error = probe(self._engine, self._silence, call)
        # Who takes no forms, or has enough to do, says so and lives.
        lives = isinstance(error, InvalidCallError) or (isinstance(error, BackendError) and error.is_refusal)
        if error is not None and not lives:
            what = "one token in a given form" if call.has_form else "one token"
            self._found = f"no answer to {what} within {self._silence:g} s: {error or type(error).__name__}"
        self._last_progress = self._clock()
