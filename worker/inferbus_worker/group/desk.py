"""Admission in a group: what has arrived is decoded here, and decided on in the store, in one round trip for all of it.

The order of the checks, and the words of a refusal, are those of `admission.admission`. What the store admits nobody
else may take before we have read that it did, and have confirmed it; then `accepted` is said, and the broker told that
the message is in good hands. So where its answer does not come in time, everything in that round trip is refused, and
what the store may have admitted of it runs nowhere.

What nobody is before, and what has a slot free here, the store grants us as it admits it: it begins to run beside its
confirmation, and only what it says waits for that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple

from inferbus_client.contract.topics import Kind
from inferbus_client.contract.wire import Control, Failure, InvalidPayloadError
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import RESET_TEXT
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.admission.decoding import Decoding
from inferbus_worker.admission.gate import Gate
from inferbus_worker.admission.verbs import answer_with_new_session, control_of
from inferbus_worker.flow.meter import Meter
from inferbus_worker.group.bidding import Bidding, Wish
from inferbus_worker.group.cancels import Cancels
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.histories import Histories, Wanted
from inferbus_worker.group.repeats import answer_again
from inferbus_worker.group.taker import Places, Taker
from inferbus_worker.group.verdicts import AWAY, refusal_of
from inferbus_worker.group.writing import read_ended, write_change
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import Owed, Receipt
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.errors import StoreAnswerError, StoreError
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.redis.bids import Bid, short
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import Confirmed, RedisGroup, Taken
from inferbus_worker.state.redis.names import session_name
from inferbus_worker.state.redis.verdicts import Admitted, Granted, Known, Repeat, Verdict

log = logging.getLogger("inferbus.desk")

#: Seconds in which the store answers, or everything that it was asked is refused.
_ANSWER_WITHIN: Final = 0.9


class _Step(NamedTuple):
    """What to ask the store about a message, and what to do when it has answered, or has not."""

    arrival: Arrival
    ask: Callable[[Places], Call[Any]]
    answered: Callable[[Any], None]
    unanswered: Callable[[], None]


class _Admission(NamedTuple):
    """What the store has admitted: of whom, at which place or, where it is granted to us, at which version."""

    bid: Bid
    wish: Wish
    position: int = 0
    version: int | None = None


class Desk:
    """Takes messages in, in their order. For the intake's thread.

    Args:
        settings: the worker's.
        courier: reaches the store.
        group: knows its words.
        figures: know its clock.
        addressing: opens reply streams.
        bidding: makes of a request what the store decides on.
        meter: counts.
        gate: whether anything is taken now.
        histories: where conversations are.
        cancels: ends what a cancel finds.
        taker: takes what can run here.
        acknowledge: tells the broker that a message needs no reply of ours, or none any more; from any thread.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        courier: Courier,
        group: RedisGroup,
        figures: Figures,
        addressing: Addressing,
        bidding: Bidding,
        meter: Meter,
        gate: Gate,
        histories: Histories,
        cancels: Cancels,
        taker: Taker,
        acknowledge: Callable[[Receipt | Owed | None], None],
    ) -> None:
        self._decoding = Decoding(settings)
        self._worker = settings.worker_id
        self._courier = courier
        self._group = group
        self._figures = figures
        self._addressing = addressing
        self._bidding = bidding
        self._meter = meter
        self._gate = gate
        self._histories = histories
        self._cancels = cancels
        self._taker = taker
        self._acknowledge = acknowledge
        #: What this round has admitted, by the jobs' names.
        self._admitted: dict[str, _Admission] = {}

    def handle(self, arrival: Arrival) -> bool:
        """One alone; the broker is told by ourselves where no reply will follow."""
        self.handle_all([arrival])
        return True

    def refuse(self, arrival: Arrival, failure: Failure) -> bool:
        """See `intake.Handler`."""
        if arrival.address.kind is Kind.CANCEL:
            self._cancels.ignored(failure)
            return False
        envelope = self._decoding.envelope(arrival.address, arrival.message)
        key = self._decoding.session_key(arrival.address, envelope)
        self._refuse(failure, self._addressing.open(arrival, envelope, key))
        return True

    def handle_all(self, arrivals: Sequence[Arrival]) -> None:
        """Do what the messages ask for; refuse what the store does not decide on in time."""
        steps = [step for arrival in arrivals if (step := self._safely(arrival, self._begin, arrival)) is not None]
        if not steps:
            return
        with self._taker.places() as places:
            try:
                answers = self._courier.ask_all([step.ask(places) for step in steps], _ANSWER_WITHIN)
            except StoreError:
                for step in steps:
                    self._safely(step.arrival, step.unanswered)
                return
            for step, answer in zip(steps, answers, strict=True):
                self._safely(step.arrival, step.answered, answer)
            if self._admitted:
                try:
                    self._confirm(places)
                except StoreError as error:
                    log.debug("nothing could be taken: %s", error)

    def _confirm(self, places: Places) -> None:
        """Let what this round has admitted be taken; run what was granted, and take of the rest what can run here."""
        admitted, self._admitted = self._admitted, {}
        granted, waiting = [], set()
        for bid, _, _, version in admitted.values():
            if version is None:
                waiting.add(bid.model)
            else:
                granted.append(_taken(bid, version, places.token))
                places.fill(bid.model)
        to_fill = [(model, count) for model, count in places.left if model in waiting]
        # Of what is left, the taking itself lets others hear.
        confirm = self._group.confirm(list(admitted), rings=len(to_fill) < len(waiting))
        told: Future[Confirmed] = Future()
        self._courier.post(
            confirm, partial(self._tell, admitted, told), partial(self._unconfirmed, admitted, told), keeps=True
        )
        try:
            self._taker.receive(granted, places.since, told)
        finally:
            if to_fill:
                self._taker.take(to_fill)

    def _safely(self, arrival: Arrival, do: Callable[..., Any], *args: Any) -> Any:
        try:
            return do(*args)
        except BaseException:  # a tokenizer's panic is no `Exception`, and must not end the thread that all wait for
            log.exception("a message could not be handled")
            try:
                is_answered = self.refuse(arrival, Failure("engine_error"))
            except Exception:
                log.exception("a message could not be refused")
                is_answered = False
            if not is_answered:
                self._acknowledge(arrival.receipt)

    def _begin(self, arrival: Arrival) -> _Step | None:
        """What to ask the store; None where the message has been dealt with without."""
        match arrival.address.kind:
            case Kind.USER_INPUT if arrival.is_sound:
                return self._user_input(arrival)
            case Kind.CANCEL:
                return self._cancel(arrival)
            case Kind.SESSION:
                answer_with_new_session(arrival, self._addressing)
            case Kind.USER_INPUT:
                self.refuse(arrival, Failure("engine_error"))
        return None

    def _user_input(self, arrival: Arrival) -> _Step | None:
        address = arrival.address
        try:
            request = self._decoding.decode(address, arrival.message)
        except InvalidPayloadError as refusal:
            key = self._decoding.session_key(address, refusal.envelope)
            self._refuse(refusal.failure, self._addressing.open(arrival, refusal.envelope, key))
            return None
        key = self._decoding.session_key(address, request)
        replies = self._addressing.open(arrival, request, key)
        if isinstance(request, Control):
            return self._reset(arrival, key, replies)
        wish = Wish(arrival, request, key, replies)
        bid = self._closed() or self._bidding.bid(wish)
        if isinstance(bid, Failure):
            self._refuse(bid, replies)
            return None
        ask = partial(self._admit, bid)
        return _Step(arrival, ask, partial(self._decided, bid, wish), partial(self._undecided, bid, replies))

    def _admit(self, bid: Bid, places: Places) -> Call[Verdict]:
        return self._group.admit(bid, self._figures.not_after(), places.offer(bid.model))

    def _closed(self) -> Failure | None:
        if self._gate.reason is not None:
            return self._gate.reason
        if not self._courier.is_here:
            return AWAY
        return Failure("overloaded") if self._addressing.is_congested else None

    def _decided(self, bid: Bid, wish: Wish, verdict: Verdict) -> None:
        match verdict:
            case Admitted(position):
                self._admitted[bid.job] = _Admission(bid, wish, position)
            case Granted(version):
                self._admitted[bid.job] = _Admission(bid, wish, version=version)
            case Repeat():
                self._repeats(wish)
            case Known(outcome):
                self._meter.repeated()
                answer_again(wish, read_ended(outcome), self._addressing)
            case _:
                self._refuse(refusal_of(verdict, self._meter, bid), wish.replies)

    def _undecided(self, bid: Bid, replies: ReplyStream) -> None:
        """The store may have admitted it all the same: nobody takes it, and it is withdrawn as soon as it hears so."""
        self._courier.post(self._group.withdraw([bid.job]), keeps=True)
        self._refuse(AWAY, replies)

    def _repeats(self, wish: Wish) -> None:
        """The same is in flight, and answers this one as well."""
        self._meter.repeated()
        self._acknowledge(wish.arrival.receipt)

    def _tell(self, admitted: Mapping[str, _Admission], told: Future[Confirmed], became: Confirmed) -> None:
        """Whatever becomes of this worker, what is confirmed somebody answers. In the courier's thread."""
        for job, (bid, wish, position, _) in admitted.items():
            try:
                if job in became.gone:  # the store was away for so long that it was dropped
                    self._refuse(AWAY, wish.replies)
                elif job in became.elsewhere:
                    self._repeats(wish)
                else:
                    self._accept(position, bid.model, wish.replies)
            except Exception:
                log.exception("a requester could not be told that its request was accepted")
        told.set_result(became)

    def _unconfirmed(self, admitted: Mapping[str, _Admission], told: Future[Confirmed], error: StoreError) -> None:
        """Nothing was confirmed, and is dropped; or this worker leaves, and nobody knows."""
        if isinstance(error, StoreAnswerError):
            self._tell(admitted, told, Confirmed(gone=list(admitted)))
        else:
            told.set_result(Confirmed(elsewhere=list(admitted)))

    def _accept(self, position: int, model: str, replies: ReplyStream) -> None:
        receipt = replies.address.receipt
        if replies.address.json:
            wait = self._meter.wait_estimate(position, model)
            told = self._addressing.open_beside(replies, self._worker)
            told.accepted(position, None if wait is None else round(wait * 1000))
        self._acknowledge(receipt)

    def _reset(self, arrival: Arrival, key: SessionKey, replies: ReplyStream) -> _Step | None:
        """Forget the conversation; not again where that comes again, or it would undo what was said since."""
        if arrival.again:
            replies.end(Answered(RESET_TEXT))
            return None
        if not self._courier.is_here:
            self._refuse(AWAY, replies)
            return None

        def answered(version: int | None) -> None:
            if version is None:
                self._refuse(Failure("session_busy"), replies)
                return
            if version:
                self._histories.write(Wanted(name, version), resets, Conversation(), lambda: None)
            replies.end(Answered(RESET_TEXT))

        name, resets = session_name(key), Change(resets=True)
        call = self._group.reset(name, write_change(resets))
        return _Step(arrival, lambda _: call, answered, partial(self._refuse, AWAY, replies))

    def _cancel(self, arrival: Arrival) -> _Step | None:
        """See `Verbs`. One that comes again was meant for a request before it, which has ended by now."""
        self._acknowledge(arrival.receipt)
        if arrival.again:
            return None
        try:
            wanted = control_of(arrival.message).request_id
        except InvalidPayloadError as refusal:
            self._cancels.ignored(refusal.failure)
            return None
        address = arrival.address
        key = SessionKey(address.project, address.session or "", address.user)
        call = self._cancels.call(key, wanted)
        return _Step(arrival, lambda _: call, self._cancels.found, partial(self._cancels.here, key, wanted))

    def _refuse(self, failure: Failure, replies: ReplyStream) -> None:
        self._meter.rejected(failure.code)
        log.debug("refused a request: %s", failure.message)
        replies.end(failure)


def _taken(bid: Bid, version: int, token: str) -> Taken:
    """What was granted, as if it had been taken."""
    return Taken(
        job=bid.job,
        token=token,
        run=0,
        body=bid.body,
        session=None if bid.session is None else short(bid.session),
        version=version,
        waited=0.0,
        deadline=bid.deadline,
        owed=None,
        is_poison=False,
        model=bid.model,
    )
