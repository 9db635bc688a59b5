"""vLLM in this process: one thread owns one event loop that owns the engine.

Worker threads never touch the engine: they hand a call over to the loop and wait for chunks. (vLLM's
synchronous `LLM` class, called from several threads, aborts the process.) Only the `vllm*` modules of this
package import vllm, inside functions; the paths that they use move between releases, so the version is pinned
and a test names the one that moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from inferbus_worker import logs
from inferbus_worker.engines.base import CHARACTERS_PER_TOKEN, ChatCall, EngineDeadError, EngineStartError, OnDelta
from inferbus_worker.engines.loop_generation import GENERATION_TASK, LoopGeneration
from inferbus_worker.engines.vllm.arguments import check_model, parse_options, served_name
from inferbus_worker.engines.vllm.chat import ChatServing
from inferbus_worker.engines.vllm.errors import start_failure
from inferbus_worker.engines.vllm.measure import bytes_taken
from inferbus_worker.engines.vllm.orphan_guard import GROUP_SIGNALS
from inferbus_worker.engines.vllm.output import EngineOutput
from inferbus_worker.engines.vllm.processes import engine_processes, kill, memory_of
from inferbus_worker.engines.vllm.rendering import render_in_place
from inferbus_worker.engines.vllm.room import check_room
from inferbus_worker.engines.vllm.sockets import SOCKETS
from inferbus_worker.engines.vllm.template import check_template

if TYPE_CHECKING:
    import psutil

__all__ = ["VllmEngine", "parse_options"]

#: Of the time to stop, what is kept for SIGKILL and its aftermath.
_KILL_RESERVE = 0.5
_KILL_INTERVAL = 0.1
#: What is supposed of a model whose files have not been read: no more than what most have, of their usual tokens.
_CONTEXT_TOKENS = 32768
#: Texts whose length in tokens is remembered, and their length: system prompts come again with every request.
_COUNTED = 256
_LONGEST_COUNTED = 16384
_STOPPED = "The engine was stopped while it started."

log = logging.getLogger("inferbus.vllm")


class VllmEngine:
    """An `Engine` on vLLM.

    Args:
        model: a directory, a name on the model hub, or `demo` for the model that comes with the package.
        options: vLLM's own command line options, as `vllm serve` takes them.
        places: where those of them stand that come from a file, by name; for what is wrong with them.
        with_metrics: whether somebody may read vLLM's own, in Prometheus' registry. To keep them costs a tenth of its
            loop's time.
        stat_loggers: makers of what is told of vLLM's statistics besides, at the same cost.
    """

    def __init__(
        self,
        model: str,
        options: Sequence[str] = (),
        places: Mapping[str, str] | None = None,
        *,
        with_metrics: bool = False,
        stat_loggers: Sequence[Callable[[Any, int], Any]] = (),
    ) -> None:
        self._model = model
        self._options = tuple(options)
        self._places = places or {}
        self._served_name = model
        self._thread: threading.Thread | None = None
        self._started: Future[None] = Future()
        self._stop_by: float | None = None  # monotonic; set once by `stop`
        self._others: set[psutil.Process] = set()  # of another engine in this process
        self._processes: set[psutil.Process] = set()
        self._with_metrics = with_metrics
        self._stat_loggers = list(stat_loggers)
        self._taken: int | None = None  # bytes, as vLLM measured them
        self._counting = threading.Lock()
        self._counted: LRUCache[str, int] = LRUCache(_COUNTED)
        self._output: EngineOutput | None = None
        self._sockets = contextlib.ExitStack()
        # Set on the loop's thread before `_started` is.
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._engine: Any = None
        self._chat: ChatServing
        self._tokenizer: Any

    #: No server across the network: it tells of no rate limits, and what is aborted ends.
    headroom: float | None = None
    leaked = 0
    counts_exactly = True

    @property
    def model(self) -> str:
        return self._served_name

    @property
    def memory_bytes(self) -> int | None:
        if not self._processes:
            return None
        return memory_of(self._processes) if self._taken is None else self._taken

    @property
    def capacity(self) -> int:
        config = self._engine.vllm_config
        return int(config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size)

    @property
    def context_tokens(self) -> int:
        return _CONTEXT_TOKENS if self._engine is None else int(self._engine.model_config.max_model_len)

    @property
    def death(self) -> EngineDeadError | None:
        if self._engine is None or self._stop_by is not None or not self._engine.errored:
            return None
        return EngineDeadError("vLLM's engine process has ended")

    def start(self) -> None:
        """See `Engine.start`.

        Raises:
            EngineStartError: vLLM did not come up; one sentence, the details are in the log.
            SystemExit: vLLM's parser refused an option; it has said so on standard error.
        """
        check_model(self._model)
        arguments = parse_options(self._model, self._options, self._places)
        check_room(self._model, arguments)
        logs.take_over()
        self._served_name = served_name(arguments)
        self._others = engine_processes()
        self._output = EngineOutput()
        self._sockets.enter_context(SOCKETS)
        self._thread = threading.Thread(target=self._own_loop, args=(arguments,), name="engine-loop", daemon=True)
        self._thread.start()
        try:
            self._started.result()
        except Exception as error:
            log.debug("vLLM did not start", exc_info=True)
            cause = self._output.close()
            stopped = self._stop_by is not None
            raise EngineStartError(_STOPPED if stopped else start_failure(self._model, error, cause)) from error
        self._processes = engine_processes(self._others)

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> LoopGeneration:
        """See `Engine.generate`."""
        answer, within = self._chat.answer(call), call.first_token_within
        return LoopGeneration(self._loop, answer, on_delta, first_within=within, tools=call.tools)

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`: an estimate, while the tokenizer is not there."""
        if self._engine is None:
            return len(text) // CHARACTERS_PER_TOKEN + 1
        with self._counting:
            count = self._counted.get(text)
            if count is None:
                count = len(self._tokenizer.encode(text, add_special_tokens=False))
                if len(text) <= _LONGEST_COUNTED:
                    self._counted[text] = count
            return count

    def stop(self, timeout: float) -> None:
        """See `Engine.stop`. Also ends a `start` that is still under way."""
        deadline = time.monotonic() + timeout
        self._stop_by = deadline
        if self._thread is None:
            return
        if self._started.done() and not self._started.exception():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(max(0.0, timeout - _KILL_RESERVE))
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._processes |= engine_processes(self._others)
            kill(self._processes, time.monotonic() + _KILL_INTERVAL)
            self._thread.join(_KILL_INTERVAL)
        kill(self._processes, deadline)
        self._sockets.close()
        if self._output is not None:
            self._output.close()

    # From here on: the engine's own thread.

    def _own_loop(self, arguments: Namespace) -> None:
        # The engine's processes inherit this mask, and keep it until their guard has taken them out of our
        # process group: a Ctrl-C during the start is for the worker, which then stops them in its own order.
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                runner.run(self._serve(arguments))
            except Exception as error:
                if self._started.done():
                    log.exception("the engine's loop failed")
                else:
                    self._started.set_exception(error)
            finally:  # whatever it was, nobody waits for ever
                if not self._started.done():
                    self._started.set_exception(EngineStartError("The engine's thread ended."))

    async def _serve(self, arguments: Namespace) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        engine = self._launch(arguments)
        try:
            await self._prepare(engine, arguments)
            self._started.set_result(None)
            await self._stopping.wait()
            await _cancel_generations()
        finally:
            left = 0.0 if self._stop_by is None else self._stop_by - time.monotonic() - 2 * _KILL_RESERVE
            engine.shutdown(timeout=max(0.0, left))

    def _launch(self, arguments: Namespace) -> Any:
        """Start the engine's processes and load the model; blocks this thread until it can answer."""
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
        from vllm.reasoning import ReasoningParserManager  # noqa: PLC0415
        from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        if arguments.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)
        context = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(context)
        token = check_template(self._model, config.model_config, arguments)
        if token is not None:
            log.warning("the chat template does not escape special tokens: a message with %s can forge turns", token)
        if self._stop_by is not None:
            raise EngineStartError(_STOPPED)
        assert self._output is not None  # noqa: S101 - `start` has made it
        # vLLM's spans are made of its statistics, too.
        has_stats = self._with_metrics or config.observability_config.otlp_traces_endpoint is not None
        with self._output.inherited():
            return AsyncLLM.from_vllm_config(
                config, usage_context=context, stat_loggers=self._stat_loggers or None, disable_log_stats=not has_stats
            )

    async def _prepare(self, engine: Any, arguments: Namespace) -> None:
        from starlette.datastructures import State  # noqa: PLC0415
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # noqa: PLC0415

        tasks = await engine.get_supported_tasks()
        if "generate" not in tasks:
            raise EngineStartError(f"{self._model} is not a model that generates text.")
        await engine.reset_mm_cache()  # as vLLM's server does: the start has filled it with samples
        _cap_context(engine)
        state = State()
        await init_app_state(engine, state, arguments, tasks)
        render_in_place(engine.renderer)
        self._chat = ChatServing(state.openai_serving_chat)
        # Its own copy: vLLM's renderer sets truncation on the one it shares between threads.
        self._tokenizer = copy.deepcopy(engine.get_tokenizer())
        self._taken = await bytes_taken(engine)
        self._engine = engine


def _cap_context(engine: Any) -> None:
    """Make the longest prompt one that the KV cache can hold: a longer one would block everyone for ever."""
    cache = engine.vllm_config.cache_config
    held = cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size
    if held:
        engine.model_config.max_model_len = min(engine.model_config.max_model_len, held)


async def _cancel_generations() -> None:
    """End every generation under way, and let it tell its reader."""
    generations = [task for task in asyncio.all_tasks() if task.get_name() == GENERATION_TASK]
    for task in generations:
        task.cancel()
    await asyncio.gather(*generations, return_exceptions=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
