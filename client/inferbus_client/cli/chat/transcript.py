"""What was said in a chat, for `/retry` and `/save`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Said:
    """A question and what came of it; `ending` says how an answer ended that is not whole."""

    question: str
    answer: str = ""
    ending: str = ""


class Transcript:
    """Every question of one chat, in order."""

    def __init__(self) -> None:
        self._said: list[Said] = []

    def __bool__(self) -> bool:
        return bool(self._said)

    @property
    def last_question(self) -> str | None:
        return self._said[-1].question if self._said else None

    def ask(self, question: str) -> Said:
        """Note a question; the caller adds to it what is answered."""
        self._said.append(Said(question))
        return self._said[-1]

    def save(self, file: Path, title: str) -> None:
        """Write it as Markdown, the answers as the model wrote them.

        Raises:
            OSError: the file exists already, or cannot be written.
        """
        parts = [f"# {title}"]
        for one in self._said:
            parts += [f"**You:** {one.question}", f"**Answer:** {one.answer}"]
            parts += [f"*({one.ending})*"] if one.ending else []
        with file.open("x", encoding="utf-8", errors="backslashreplace") as out:
            out.write("\n\n".join(parts) + "\n")
