"""Puts one request's numbered replies together: drops repeats and earlier runs, counts losses, joins the deltas."""

from __future__ import annotations

from collections.abc import Iterator

from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, Failure
from inferbus_client.exchange.answer import Restarted

AnyReply = Accepted | Delta | Done | ErrorReply


class Assembly:
    """The replies to one attempt, in order.

    What `take` hands on joins to the whole text: after a lost delta nothing more is handed on until the answer,
    which carries the whole text, supplies the rest. A caller that prints deltas thus never prints a hole.

    Where another worker of a group begins the request anew, the replies are of a higher run: what was handed on is
    void, which the caller is told before it sees more, and replies of lower runs count no more.

    Attributes:
        lost: parts of the answer that never arrived.
        duplicates: messages that arrived again, or of a run that counts no more.
        started: whether any delta was handed on, in this run.
        run: how often another worker began anew.
        answer: the terminal `done`, once it is there.
        failure: the terminal `error`, once it is there.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.duplicates = 0
        self.started = False
        self.run = 0
        self.answer: Done | None = None
        self.failure: Failure | None = None
        self._next = 0
        self._whole = True
        self._was_accepted = False
        self._pieces: list[str] = []

    @property
    def end(self) -> Done | Failure | None:
        return self.answer or self.failure

    def take(self, reply: AnyReply) -> Iterator[Accepted | Delta | Restarted]:
        """Take a reply in; yields what the caller should see of it."""
        if not self.end and reply.run > self.run:
            yield from self._begin_anew(reply)
        if self.end or reply.run < self.run or not self._is_new(reply):
            self.duplicates += 1
            return
        if isinstance(reply, Done):
            self.answer = reply
            yield from self._rest(reply)
        elif isinstance(reply, ErrorReply):
            sentence = Failure(reply.code).message
            self.failure = Failure(reply.code, reply.message.removeprefix(sentence).strip(), reply.retry_after_ms)
        elif isinstance(reply, Accepted):
            yield reply
        elif self._whole:
            yield self._hand_on(reply)

    def _begin_anew(self, reply: AnyReply) -> Iterator[Restarted]:
        was_started, self.run, self._next, self._whole, self._was_accepted = self.started, reply.run, 0, True, False
        if isinstance(reply, ErrorReply):
            return  # nothing comes in the place of what was handed on
        self.started, self._pieces = False, []
        if was_started:
            yield Restarted(reply.run, reply.worker if isinstance(reply, Accepted) else None)

    def _is_new(self, reply: AnyReply) -> bool:
        """Whether this reply is no repeat; notes what is missing before it."""
        if isinstance(reply, Accepted):
            was_accepted, self._was_accepted = self._was_accepted, True
            if reply.worker is not None and not was_accepted and self._next:
                return True  # of two workers of a group the one that answers was quicker than the one that says so
            if self.started:
                # Perhaps a repeat, perhaps a restarted worker that runs the request again: its deltas would be another
                # answer's, so only the end is to be trusted now.
                self._whole = False
        if reply.seq < self._next and not reply.terminal:
            return False
        # The first is `accepted`: it may come late, or never, and is no part of the answer.
        missing = max(reply.seq - max(self._next, 1), 0)
        self.lost += missing
        self._whole = self._whole and not missing
        self._next = reply.seq + 1
        return True

    def _hand_on(self, delta: Delta) -> Delta:
        self.started = True
        self._pieces.append(delta.text)
        return delta

    def _rest(self, done: Done) -> Iterator[Delta]:
        """What the deltas so far lack of the whole text."""
        so_far = "".join(self._pieces)
        if not done.text.startswith(so_far):
            self.lost += 1
        elif rest := done.text[len(so_far) :]:
            yield self._hand_on(Delta(request_id=done.request_id, session_id=done.session_id, seq=done.seq, text=rest))
