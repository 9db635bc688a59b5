"""The ways to the same engine: over the bus, in this process, over vLLM's own HTTP server.

Each is a context that holds one engine; on a small machine two would be in each other's way.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from enum import Enum
from types import TracebackType
from typing import Final, Self

import psutil

from inferbus_worker.engines.vllm.orphan_guard import WORKER_PID

from . import closed_loop, http_load
from .dialects import Json
from .model import Model
from .outcome import Outcome
from .processes import Child, ProcessFailedError, broker, free_port, redis, worker

_START_SECONDS: Final = 900.0
_RUN_SECONDS: Final = 600.0
_LOOK: Final = 0.1
_STOP_SECONDS: Final = 15.0


class Way(Enum):
    """A row of the tables."""

    BUS = "over the bus"
    THREADS = "in-process, threads"
    ASYNCIO = "in-process, asyncio"
    LEAST = "the least bus"
    HTTP = "vLLM's HTTP server"
    BUS_STREAM = "over the bus, streamed"
    ASYNCIO_STREAM = "in-process, asyncio, streamed"
    LEAST_STREAM = "the least bus, streamed"
    HTTP_STREAM = "vLLM's HTTP server, streamed"


_STREAMED: Final = {Way.BUS_STREAM, Way.LEAST_STREAM}


class Side(ABC):
    """An engine that is up inside the `with`, and the ways to it.

    Attributes:
        ways: which of them this side can go.
        child: the process that holds the engine's front; all of the engine is among its children.
    """

    ways: tuple[Way, ...] = ()
    child: Child

    def __init__(self, model: Model, slots: int) -> None:
        self._model = model
        self._slots = slots
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Bring the engine up.

        Raises:
            ProcessFailedError: it does not come up.
        """
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def run(self, way: Way, sessions: int, requests: int) -> Outcome:
        """A closed loop.

        Raises:
            TimeoutError: not every answer came in time.
        """

    @abstractmethod
    def _start(self) -> None: ...


class BusSide(Side):
    """Broker and worker. Histories are switched off: every side answers the same prompts."""

    ways = (Way.BUS, Way.BUS_STREAM)

    def _start(self) -> None:
        model = self._model
        self._port = self._stack.enter_context(broker())
        self.child = worker(self._port, str(model.path), *self._options(), environment=model.environment)
        self._stack.enter_context(self.child)
        self.child.wait_for('"ready:', _START_SECONDS)

    def run(self, way: Way, sessions: int, requests: int) -> Outcome:
        dialect = Json(stream=way in _STREAMED, max_tokens=self._model.max_tokens)
        return closed_loop.run(self._port, sessions=sessions, requests=requests, dialect=dialect, patience=_RUN_SECONDS)

    def _options(self) -> list[str]:
        slots = str(self._slots)
        return ["--workers", slots, "--max-workers", slots, "--max-history-tokens", "0", *self._model.options]


class GroupSide(BusSide):
    """The same, as the only worker of a group."""

    def _options(self) -> list[str]:
        store, _ = self._stack.enter_context(redis())
        return [*super()._options(), "--state", store]


class LeastBusSide(BusSide):
    """The same broker and load, and in the worker's place the least that can be: see `least_bus`."""

    ways = (Way.LEAST, Way.LEAST_STREAM)

    def _start(self) -> None:
        model = self._model
        self._port = self._stack.enter_context(broker())
        command = [sys.executable, "-P", "-W", "ignore", "-m", "benchmarks.least_bus", str(self._port), str(model.path)]
        self.child = self._stack.enter_context(Child([*command, *model.options], model.environment))
        self.child.wait_for("least bus ready", _START_SECONDS)


class InProcessSide(Side):
    """The engine in a process of its own that makes its load itself."""

    ways = (Way.THREADS, Way.ASYNCIO, Way.ASYNCIO_STREAM)

    def _start(self) -> None:
        model = self._model
        command = [sys.executable, "-P", "-m", "benchmarks.in_process", str(model.path), *model.options]
        self.child = Child(command, model.environment, piped=True)
        self._stack.enter_context(self.child)
        self._stack.callback(self._end)
        self._line(_START_SECONDS)

    def run(self, way: Way, sessions: int, requests: int) -> Outcome:
        order = {"how": way.name.lower(), "sessions": sessions, "requests": requests}
        line = json.dumps(order | {"max_tokens": self._model.max_tokens}) + "\n"
        self.child.process.stdin.write(line.encode())
        self.child.process.stdin.flush()
        return Outcome.decode(self._line(_RUN_SECONDS))

    def _line(self, timeout: float) -> str:
        """What the process answers.

        Raises:
            TimeoutError: nothing, for `timeout` seconds.
            ProcessFailedError: it has ended.
        """
        answers = self.child.process.stdout
        if not select.select([answers], [], [], timeout)[0]:
            raise TimeoutError(f"the engine's process says nothing for {timeout:g} s")
        line = answers.readline().decode()
        if not line:
            raise ProcessFailedError(f"the engine's process ended: {self.child.log[-2000:]}")
        return str(line)

    def _end(self) -> None:
        """It ends with its input, and stops its engine in order."""
        self.child.process.stdin.close()
        self.child.process.stdout.close()
        with suppress(psutil.TimeoutExpired):
            self.child.process.wait(_STOP_SECONDS)


class HttpSide(Side):
    """vLLM's OpenAI-compatible server; same model, same options, its logs off as the worker's are."""

    ways = (Way.HTTP, Way.HTTP_STREAM)
    _NAME: Final = "bench"

    def _start(self) -> None:
        self._port = free_port()
        quiet = ["--disable-log-stats", "--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--served-model-name", self._NAME]
        program = [sys.executable, "-P", "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"]
        command = [*program, "--model", str(self._model.path), *where, *quiet, *self._model.options]
        # With it the worker's guard lets none of vLLM's processes outlive us, whatever ends us.
        environment = {**self._model.environment, WORKER_PID: str(os.getpid())}
        self.child = Child(command, environment)
        self._stack.enter_context(self.child)
        self._wait_until_healthy()

    def run(self, way: Way, sessions: int, requests: int) -> Outcome:
        return http_load.run(
            self._port,
            model=self._NAME,
            sessions=sessions,
            requests=requests,
            stream=way is Way.HTTP_STREAM,
            max_tokens=self._model.max_tokens,
        )

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy():
            if self.child.process.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailedError(f"vLLM's HTTP server did not come up: {self.child.log[-2000:]}")
            time.sleep(_LOOK)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


SIDES: Final[Sequence[type[Side]]] = (BusSide, InProcessSide, LeastBusSide, HttpSide)
