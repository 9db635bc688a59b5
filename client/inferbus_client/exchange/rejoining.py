"""A stream that begins anew where what was said cannot be taken back: in a pipe, in an HTTP response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inferbus_client.contract.wire import Delta
from inferbus_client.errors import AnswerChangedError
from inferbus_client.exchange.answer import Restarted


class Rejoining:
    """Hands on what is new of each part of a stream: of another run, what goes beyond all that was said before.

    A run that says something else ends it, and so does one after a call of a tool has begun: it has another id.
    """

    def __init__(self) -> None:
        self._text, self._reasoning = _Said(), _Said()
        self._has_called = False
        self._run = 0

    def new(self, part: Delta | Restarted) -> Delta | None:
        """What is to be said now; None where all of it has been said.

        Raises:
            AnswerChangedError: what was said cannot be gone on with.
        """
        if isinstance(part, Restarted):
            self._run = part.run
            self._text.repeat()
            self._reasoning.repeat()
            if self._has_called:
                raise AnswerChangedError(part.run)
            return None
        self._has_called |= part.tool_calls is not None
        text, reasoning = self._text.beyond(part.text), self._reasoning.beyond(part.reasoning or "")
        if text is None or reasoning is None:
            raise AnswerChangedError(self._run)
        if len(text) == len(part.text) and len(reasoning) == len(part.reasoning or ""):
            return part
        if not (text or reasoning or part.tool_calls):
            return None
        return part.model_copy(update={"text": text, "reasoning": reasoning or None})

    def end(self) -> None:
        """The answer is whole.

        Raises:
            AnswerChangedError: it is shorter than what was said.
        """
        if self._text.is_due or self._reasoning.is_due:
            raise AnswerChangedError(self._run)


class _Said:
    """What was said, and how much of that another run has yet to repeat."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._due = ""
        self._repeated = 0

    @property
    def is_due(self) -> bool:
        return self._repeated < len(self._due)

    def repeat(self) -> None:
        self._due, self._repeated = "".join(self._pieces), 0

    def beyond(self, text: str) -> str | None:
        """What of the text was not said before; None where something else was."""
        repeats = min(len(text), len(self._due) - self._repeated)
        if not self._due.startswith(text[:repeats], self._repeated):
            return None
        self._repeated += repeats
        if rest := text[repeats:]:
            self._pieces.append(rest)
        return rest


def rejoined(parts: Iterable[Delta | Restarted]) -> Iterator[Delta]:
    """A whole stream.

    Raises:
        AnswerChangedError: see `Rejoining`.
    """
    rejoining = Rejoining()
    for part in parts:
        if (delta := rejoining.new(part)) is not None:
            yield delta
    rejoining.end()
