"""Short prompts are rendered where they come: in the engine's loop, and not in vLLM's pool of threads.

To put a prompt together and to make tokens of it takes vLLM two visits to that pool. Each hands the interpreter's lock
to another thread and back, which costs more than the work itself while prompts are short. Long ones, which would keep
all other answers waiting, still go there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

from inferbus_worker.engines.base import ChatCall

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

#: Characters of all messages together, and what each counts besides for the template's work. So many take a
#: millisecond or two.
_SHORT: Final = 2000
_MESSAGE: Final = 32

#: Whether what this task does belongs to a short prompt.
_is_short: ContextVar[bool] = ContextVar("is_short", default=False)


def begin(call: ChatCall) -> None:
    """Tell the task of a call where its prompt is to be rendered: in place, if it is short and nothing but words."""
    length = 0
    for message in call.messages:
        content = message.get("content")
        # Pictures, and calls, whose arguments may be as long as they like.
        if not isinstance(content, str) or message.get("tool_calls"):
            length = _SHORT + 1
        length += len(content or "") + _MESSAGE
        if length > _SHORT:
            break
    _is_short.set(length <= _SHORT and call.tools is None)


def render_in_place(renderer: Any) -> None:
    """Let a renderer of vLLM's do so."""
    executor = renderer._executor  # noqa: SLF001
    executor._inner = _InPlace(executor._inner)  # noqa: SLF001


class _InPlace(Executor):
    """Runs what belongs to a short prompt at once, in the thread that asks, and all else in a pool.

    Not while that has something to do: not every tokenizer knows of more than one thread. Asked by the loop alone.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._in_pool: set[Future[Any]] = set()

    def submit(
        self, fn: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        future: Future[_Result]
        if self._in_pool or not _is_short.get():
            future = self._pool.submit(fn, *args, **kwargs)
            self._in_pool.add(future)
            future.add_done_callback(self._in_pool.discard)
            return future
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - who waits for it is told
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
