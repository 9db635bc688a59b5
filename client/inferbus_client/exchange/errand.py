"""One request with all that it waits for: its turn in the session, its reply topic, its answer.

Shared by `Client` and `AsyncClient`. Like the exchange inside it waits for nothing by itself: each of these is an event
in the inbox of whoever drives the steps. So the end of the connection ends every wait at once, whatever it is for, and
no wait holds a thread that a cancelled task could not give back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from inferbus_client.errors import BrokerError, ConnectionLostError, RequestTimeoutError
from inferbus_client.exchange.exchange import Exchange
from inferbus_client.exchange.options import WhenBusy, session_busy
from inferbus_client.exchange.steps import Deliver, Event, Receive, Signal, Step, Steps
from inferbus_client.exchange.transport import Transport
from inferbus_client.exchange.turns import Place, Turns


class Errand:
    """A request of one caller. `steps` runs it, once.

    Attributes:
        exchange: what is asked, and afterwards the answer.
        place: where it stands in its session.
        run: the exchange's steps, once its turn has come.
    """

    def __init__(
        self, exchange: Exchange, transport: Transport, turns: Turns, caller: object, when_busy: WhenBusy | None
    ) -> None:
        self.exchange = exchange
        self.place = Place(exchange.call.line, caller)
        self.run: Callable[[], Steps] = exchange.steps
        self._transport = transport
        self._turns = turns
        self._when_busy = when_busy

    def steps(self, deliver: Deliver) -> Steps:
        """Run it.

        Args:
            deliver: takes what happens, from any thread; the driver sends it in where a step asks for it.

        Raises:
            SessionBusyError: another request has the session, and this one is not to wait, or would for ever.
            RequestTimeoutError, RequestFailedError, BrokerError: as `Exchange.steps` says.
        """
        call = self.exchange.call
        with self._transport.attended(deliver), self._turns.standing(self.place, deliver):
            yield from self._take_turn()
            with self._transport.waiting(call, deliver):
                yield from hear(self._transport, call.reply_topic, deliver, lambda: self.exchange.remaining)
                yield from self.run()

    def _take_turn(self) -> Steps:
        if self._turns.has_come(self.place):
            return
        if self._when_busy == "raise":
            raise session_busy("This client has a request in flight in that session.")
        if self._turns.is_waiting_for_itself(self.place):
            raise session_busy("The stream that this thread or task is reading there has to end, or be closed, first.")
        waited = self.exchange.remaining
        if not (yield from _until(lambda: self._turns.has_come(self.place), lambda: self.exchange.remaining)):
            raise RequestTimeoutError("turn in the session", waited)


def hear(transport: Transport, topic: str, deliver: Deliver, remaining: Callable[[], float]) -> Steps:
    """Be subscribed to a topic.

    Raises:
        BrokerRefusedError: the broker refuses the subscription.
        ConnectionLostError: there is no connection, or no answer in time.
    """
    if transport.reply_topics.hears(topic):
        return
    if not (yield from _until(lambda: transport.is_up, remaining)):
        raise ConnectionLostError("there is no connection to the broker")
    waited = remaining()
    granted = transport.reply_topics.listen(topic)
    granted.add_done_callback(lambda _granted: deliver(Signal.GRANTED))
    if not (yield from _until(granted.done, remaining)):
        raise ConnectionLostError(f"the broker did not answer a subscription within {waited:g} s")
    transport.check()
    if isinstance(refusal := granted.exception(), BrokerError):
        raise refusal.again()


def _until(condition: Callable[[], bool], remaining: Callable[[], float]) -> Generator[Step, Event | None, bool]:
    """Wait for what an event will tell, or for the end of the connection; whether it came in time."""
    while not condition():
        if not (seconds := remaining()):
            return False
        event = yield Receive(seconds)
        if isinstance(event, BrokerError):
            raise event
    return True
