"""The client for programs with threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from types import GeneratorType, TracebackType
from typing import Any, Self, Unpack, cast

from inferbus_client.contract.presence import Presence
from inferbus_client.contract.wire import Delta
from inferbus_client.errors import StreamInUseError
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Content, Messages
from inferbus_client.exchange.core import ClientCore, CoreProperties
from inferbus_client.exchange.errand import Errand
from inferbus_client.exchange.options import AskOptions, TurnOptions, WaitOptions, announce
from inferbus_client.exchange.steps import Deliver, Event, Receive, Steps, next_step
from inferbus_client.exchange.tools import MAX_TOOL_ROUNDS, ToolRun
from inferbus_client.settings.client import ClientSettings


class Client(CoreProperties):
    """Asks a worker over MQTT, from any number of threads.

        with Client("mqtt://broker.local", project="general") as client:
            print(client.ask("Hello").text)

    Requests of one session take turns, and are sent at least `pacing` apart (half a second; `pacing=0` turns it off);
    those of other sessions wait for neither. So 50 threads with a question each name 50 sessions.

    Args:
        settings: a broker URL, or all settings; what is left out comes from the environment (`INFERBUS_…`, then
            `MQTT_…`), then the defaults.
        on_stray: called with replies that nobody waits for any more, in the network thread.
        **overrides: single settings by name, beside a URL (`project`, `session`, `timeout`, `pacing`, …).

    Raises:
        SettingsError: a setting is not usable.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None = None,
        *,
        on_stray: Callable[[AnyReply], None] | None = None,
        **overrides: Any,
    ) -> None:
        self._core = ClientCore(settings, overrides, caller=threading.current_thread, on_stray=on_stray)

    # --- lifecycle ---

    def connect(self) -> Self:
        """Connect to the broker, unless that is done; `with` does it. After `close` the client can be connected again.

        Raises:
            BrokerError: nobody answers within `connect_timeout`, or the broker refuses this client.
        """
        try:
            self._core.connector()()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Disconnect. Requests in flight end at once, with `ClientClosedError`, and the worker is told to stop."""
        self._core.close()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def listen_to_every_session(self) -> None:
        """Hear the replies of every session through one wildcard subscription, for programs with very many sessions.

        Without it each session costs a subscription. It holds as long as the connection, until `close`.

        Raises:
            BrokerError: the broker refuses the wildcard, or does not answer.
        """
        for _nothing in _drive(self._core.listen_to_every_session):
            pass

    # --- the verbs ---

    def ask(
        self,
        message: Content | None = None,
        *,
        messages: Messages | None = None,
        run_tools: bool = False,
        max_tool_rounds: int = MAX_TOOL_ROUNDS,
        **options: Unpack[AskOptions],
    ) -> Answer:
        """Ask, and wait for the whole answer.

        Args:
            message: text, or a list of OpenAI content parts.
            messages: instead, a whole conversation as OpenAI's chat messages. The worker keeps nothing of it, so such
                requests wait for no turn, and any number may be under way at once.
            run_tools: run the `tools` that the model calls, functions all of them, and tell it what they give, until
                there is an answer. A `ToolError` of theirs it is told, any other is raised here. Each round is a
                request of its own, with its own `timeout`: whoever asks something else in the session meanwhile, a
                tool too, has the worker drop the calls that wait for their results.
            max_tool_rounds: how often it may call before that.
            **options: `temperature`, `max_tokens`, `session`, `timeout`, `tools`, …: see `AskOptions`, `TurnOptions`.

        Raises:
            RequestFailedError: the worker refused the request, or failed.
            RequestTimeoutError: it kept silent for too long.
            BrokerError: there is no connection, or it is gone for good.
            OptionTypeError, OptionValueError: there is no such option, or it cannot have this value.
            ToolRoundsError: the model calls on and on.
        """
        if not run_tools:
            return self._finish(self._core.request(message, options, stream=False, messages=messages), options)
        run = ToolRun(message, messages, options, max_tool_rounds)
        while True:
            answer = self.ask(run.message, messages=run.messages, **run.options)
            calls = run.calls(answer)
            if not calls:
                return answer
            run.go_on(answer, {call.id: run.run(call) for call in calls})

    def stream(
        self, message: Content | None = None, *, messages: Messages | None = None, **options: Unpack[AskOptions]
    ) -> Stream:
        """Ask, and iterate over the answer as it is generated. Raises what `ask` raises, here or while iterating.

        The request is sent when the iteration begins. Breaking it off (leaving the `with`, `close`) cancels it.
        """
        errand = self._core.request(message, options, stream=True, messages=messages)
        return Stream(self._core, errand, _drive(errand.steps, options))

    def cancel(self, session: str | None = None, request_id: str | None = None) -> None:
        """Cancel one request, or whatever the session has queued or running. Whoever waits gets the error."""
        self._core.cancel(session, request_id)

    def repeat(self) -> None:
        """Send again, under the same ids, whatever has no answer yet: where a worker has gone and another has come.

        A worker that has a request already answers no repeat of it twice. After a lost connection it happens by itself.

        Raises:
            BrokerError: there is no connection, and will be none.
        """
        self._core.repeat()

    def reset(self, **options: Unpack[TurnOptions]) -> None:
        """Make the worker forget the conversation. Raises what `ask` raises."""
        self._finish(self._core.reset(options))

    def new_session(self, **options: Unpack[WaitOptions]) -> str:
        """Ask the worker for a session id, and go on in that session. Raises what `ask` raises."""
        self.session = self._finish(self._core.new_session(options)).text
        return self.session

    def workers(self, timeout: float = 2.0) -> dict[str, Presence]:
        """What every worker on this broker last said of itself, by its id, as far as that has come.

        The first call subscribes; what the broker has retained follows within moments.

        Raises:
            BrokerError: there is no connection, or the broker does not let this client hear it, or does not answer
                within `timeout` seconds.
        """
        return self._core.hear_announcements(timeout).presences

    def _finish(self, errand: Errand, options: AskOptions | None = None) -> Answer:
        for _delta in _drive(errand.steps, options):
            pass
        return errand.exchange.result()


class Stream:
    """The answer as it comes: an iterator of deltas whose texts join to the whole answer.

    Where workers share their requests, and one of them dies, `Restarted` comes among them: what came before is void,
    and the deltas after it join to the whole answer.

    Attributes:
        request_id: for `Client.cancel`.
    """

    def __init__(self, core: ClientCore, errand: Errand, deltas: Generator[Delta | Restarted, None, None]) -> None:
        self.request_id = errand.exchange.call.request_id
        self._core = core
        self._errand = errand
        self._exchange = errand.exchange
        self._deltas = cast("GeneratorType[Delta | Restarted, None, None]", deltas)

    @property
    def reply(self) -> Answer | None:
        """The whole answer, once the iteration has ended."""
        return self._exchange.answer

    def result(self) -> Answer:
        """The whole answer, after the iteration has ended.

        Raises:
            MisuseError: it has not, or with an error.
        """
        return self._exchange.result()

    def cancel(self) -> None:
        """Ask the worker to stop; the iteration then ends with `RequestCancelledError`."""
        self._core.cancel_call(self._exchange.call)

    def close(self) -> None:
        """Break off: cancel what still runs, and wait no longer.

        Raises:
            StreamInUseError: another thread is reading it.
        """
        try:
            self._deltas.close()
        except ValueError:
            if self._deltas.gi_running:
                raise StreamInUseError from None
            raise

    def __iter__(self) -> Iterator[Delta | Restarted]:
        return self

    def __next__(self) -> Delta | Restarted:
        self._errand.place.caller = self._core.caller()
        try:
            return next(self._deltas)
        except ValueError:
            if self._deltas.gi_running:
                raise StreamInUseError from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _drive(
    steps_for: Callable[[Deliver], Steps], options: AskOptions | None = None
) -> Generator[Delta | Restarted, None, None]:
    """Do the waiting in this thread."""
    inbox: SimpleQueue[Event] = SimpleQueue()
    with closing(steps_for(inbox.put)) as steps:
        event: Event | None = None
        while (step := next_step(steps, event)) is not None:
            event = None
            if isinstance(step, Receive):
                event = _receive(inbox, step.seconds)
            elif isinstance(step, Delta | Restarted):
                yield step
            elif options is not None:
                announce(step, options)


def _receive(inbox: SimpleQueue[Event], seconds: float) -> Event | None:
    try:
        return inbox.get(timeout=seconds)
    except Empty:
        return None
