"""One run of a batch: reads, asks, writes; so many at once, and each answer as soon as it is there."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from dataclasses import dataclass
from typing import Final, NoReturn

from inferbus_client.aio import AsyncClient
from inferbus_client.cli.batch.attendance import Attendance
from inferbus_client.cli.batch.lines import Line, LineFaultError, Requests
from inferbus_client.cli.batch.pace import Pace
from inferbus_client.cli.batch.progress import Progress, Tally
from inferbus_client.cli.batch.records import Outcome, Records, answer_record, error_record
from inferbus_client.contract import topics
from inferbus_client.contract.wire import Failure
from inferbus_client.errors import (
    DeadlineExceededError,
    InferbusError,
    InvalidRequestError,
    MessageRefusedError,
    RequestCancelledError,
    RequestFailedError,
    RequestTimeoutError,
    SettingsError,
)
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions
from inferbus_client.shapes.openai_request import asked_for, spelled

#: Where neither the user nor a worker says how many at once, and the most that a worker's word is good for.
_AT_ONCE: Final = 16
_MOST_AT_ONCE: Final = 256
#: Seconds between two looks at the workers, the clock and the progress.
_TICK: Final = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done.

    Attributes:
        requests: the file.
        answers: where answers go.
        errors: where everything else goes.
        done: the digests of the requests that have answers.
        failed: those that an earlier run has an error for: a worker may remember it.
        session: where the replies are heard, and whose prefix cache the requests share.
        model: which one is to answer, whatever the lines say.
        concurrency: how many at once; None: as the workers say.
        patience: seconds without any answer, in trouble, after which the run ends.
    """

    requests: Requests
    answers: Records
    errors: Records
    done: set[bytes]
    failed: set[bytes]
    session: str
    model: str | None
    concurrency: int | None
    patience: float


@dataclass(slots=True)
class _Question:
    """One request, and what has become of it so far."""

    line: Line
    request_id: str
    messages: Messages
    options: AskOptions
    timeouts: int = 0
    unavailable_since: float | None = None


class Run:
    """Carries out a task over one connection.

    Args:
        client: connected.
        task: what is to be done.
        tally: where it is counted.
    """

    def __init__(self, client: AsyncClient, task: Task, tally: Tally) -> None:
        self._client = client
        self._task = task
        self._tally = tally
        self._topic = topics.user_input(client.settings.scope, task.session)
        self._mark = uuid.uuid4().hex[:8]
        self._attendance = Attendance(client)
        self._pace = Pace(task.concurrency or _AT_ONCE)
        self._places = 0
        self._free = asyncio.Semaphore(0)  # of the places
        self._trouble = ""
        self._last_answer = 0.0

    async def run(self, progress: Progress) -> None:
        """Ask everything that has no answer yet.

        Raises:
            RequestTimeoutError: nothing was answered for too long.
            BrokerError: the connection is gone for good.
            SettingsError: the file of requests has changed meanwhile.
            OSError: what has come cannot be written.
        """
        await self._attendance.gather()
        self._pace.hold(self._attendance.missing)
        self._make_room()
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch(progress))
                for line in self._task.requests.read():
                    if isinstance(line, LineFaultError):
                        raise SettingsError(f"{self._task.requests.name} has changed meanwhile: {line}")
                    if line.digest not in self._task.done:
                        await self._free.acquire()
                        tasks.create_task(self._settle(line)).add_done_callback(lambda _task: self._free.release())
                left = 0
                while left < self._places:  # whoever is the last
                    await self._free.acquire()
                    left += 1
                watch.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    # --- one request ---

    async def _settle(self, line: Line) -> None:
        """Ask until there is an answer, or a reason why there will be none."""
        request_id = line.digest.hex()
        if line.digest in self._task.failed:
            request_id = self._fresh(line)
        try:
            messages, options = asked_for(line.body)
        except InvalidRequestError as error:
            self._failed(line, request_id, Outcome(error.code, str(error)))
            return
        if self._task.model is not None:
            options["model"] = self._task.model
        question = _Question(line, request_id, messages, options)
        outcome: Answer | Outcome | None = None
        while outcome is None:
            outcome = await self._ask(question)
        self._pace.answered()
        self._last_answer = time.monotonic()
        if isinstance(outcome, Outcome):
            self._failed(line, question.request_id, outcome)
        else:
            model = question.options.get("model") or self._attendance.model
            self._task.answers.write(answer_record(line, outcome, model))
            self._tally.answered += 1

    async def _ask(self, question: _Question) -> Answer | Outcome | None:
        """One try; None where it is to be tried again."""
        options: AskOptions = {
            **question.options,
            "request_id": question.request_id,
            "session": self._task.session,
            "on_retry": _leave_it_to_us,
        }
        entered = await self._pace.enter()
        try:
            return await self._client.ask(messages=question.messages, **options)
        except (RequestFailedError, RequestTimeoutError, MessageRefusedError) as error:
            return self._judged(question, error, entered)
        finally:
            self._pace.leave()

    def _judged(self, question: _Question, error: InferbusError, entered: float) -> Outcome | None:
        match error:
            case RequestTimeoutError() | DeadlineExceededError():
                return self._timed_out(question, error, entered)
            case RequestCancelledError() if question.request_id == question.line.digest.hex():
                # By an earlier run, which was interrupted: the worker remembers that as the request's end.
                question.request_id = self._fresh(question.line)
                return None
            case RequestFailedError(retryable=True):
                return self._refused(question, error, entered)
            case RequestFailedError():
                return Outcome(error.code, str(RequestFailedError(_respelled(error))), error.status)
            case MessageRefusedError() if error.topic == self._topic:
                too_large = Failure("message_too_large", str(error))
                return Outcome(too_large.code, too_large.message, too_large.status)
        raise error

    def _refused(self, question: _Question, error: RequestFailedError, entered: float) -> Outcome | None:
        """Not now: everybody waits. Of several models one may be away for good, though, while others answer."""
        self._trouble = str(error)
        self._pace.refused(entered, error.retry_after)
        if error.code == "engine_unavailable":
            now = time.monotonic()
            question.unavailable_since = question.unavailable_since or now
            if now - question.unavailable_since > self._task.patience:
                return Outcome(error.code, str(error), error.status)
        return None

    def _timed_out(self, question: _Question, error: InferbusError, entered: float) -> Outcome | None:
        """Its worker may have gone, or nobody is there; else it is the request's own fault."""
        if self._attendance.since > entered:
            return None
        silent = isinstance(error, RequestTimeoutError) and error.what != "answer"
        if silent and self._last_answer <= entered:
            self._trouble = str(error)
            self._pace.refused(entered, None)
            return None
        question.timeouts += 1
        if question.timeouts <= self._client.settings.retries:
            return None
        failure = Failure("deadline_exceeded")
        return Outcome(failure.code, str(error), failure.status)

    def _failed(self, line: Line, request_id: str, outcome: Outcome) -> None:
        self._task.errors.write(error_record(line, request_id, outcome))
        self._tally.failed += 1

    def _fresh(self, line: Line) -> str:
        """An id under which no worker remembers anything."""
        return f"{line.digest.hex()}-{self._mark}"

    # --- all of them ---

    async def _watch(self, progress: Progress) -> None:
        while True:
            await self._attendance.look()
            self._pace.hold(self._attendance.missing)
            self._make_room()
            waiting = self._waiting()
            since = self._pace.troubled_since
            if since is not None and time.monotonic() - since > self._task.patience:
                raise RequestTimeoutError(f"answer to any request ({waiting or self._trouble})", self._task.patience)
            progress.show(waiting)
            await asyncio.sleep(_TICK)

    def _make_room(self) -> None:
        """As many at once as the workers who are ready run: some are heard of later than others, or come later."""
        most = self._task.concurrency or min(self._attendance.capacity or self._places or _AT_ONCE, _MOST_AT_ONCE)
        self._pace.allow(most)
        for _ in range(most - self._places):
            self._free.release()
        self._places = max(self._places, most)

    def _waiting(self) -> str:
        """What all wait for; empty while they go on."""
        if not self._client.is_connected:
            return "no connection to the broker, trying again"
        if self._pace.held:
            return f"waiting: {self._pace.held}"
        pause = self._pace.pause
        return f"{self._trouble} Going on in {math.ceil(pause)} s." if pause else ""


def _leave_it_to_us(error: RequestFailedError, _seconds: float) -> NoReturn:
    """For `on_retry`: what one request is refused for concerns them all."""
    raise error


def _respelled(error: RequestFailedError) -> Failure:
    failure = error.failure
    return Failure(failure.code, spelled(failure.detail), failure.retry_after_ms)
