"""`inferbus ask --messages`: a whole conversation from a file or from standard input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import click

from inferbus_client.cli.sampling import as_flag, refusal
from inferbus_client.cli.streams import read_input
from inferbus_client.exchange.options import AskOptions
from inferbus_client.shown import shown_in_line

#: In what the contract says of a conversation: which message it is about.
_NUMBER: Final = re.compile(r"messages\.(\d+)\.?")


class Conversation:
    """OpenAI's chat messages as somebody has written them down.

    Attributes:
        messages: as they travel.
    """

    def __init__(self, source: str, messages: list[Any], lines: list[int] | None = None) -> None:
        self.messages = messages
        self._source = source
        self._lines = lines

    @classmethod
    def read(cls, name: str) -> Conversation:
        """What a file says, or standard input (`-`): a JSON list, an object with `messages`, or a message a line.

        Raises:
            click.UsageError: it cannot be read, or is none of these; with the line and the column.
        """
        source = "standard input" if name == "-" else name
        text = read_input() if name == "-" else _read(name)
        if not text.strip():
            raise _wrong(source, "there is nothing to ask: it is empty")
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            if text.lstrip().startswith("["):
                raise _not_json(source, error) from None
            return cls._of_lines(source, text)
        except (ValueError, RecursionError):
            raise _wrong(source, "nests too deep, or has a number of too many digits") from None
        if isinstance(whole, dict):
            whole = whole.get("messages", [whole])
        if not isinstance(whole, list):
            raise _wrong(source, "must be a list of messages, or one message a line")
        return cls(source, whole)

    @classmethod
    def _of_lines(cls, source: str, text: str) -> Conversation:
        messages, lines = [], []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                messages.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise _not_json(source, error, number) from None
            except (ValueError, RecursionError):
                raise _wrong(source, f"line {number} nests too deep, or has a number of too many digits") from None
            lines.append(number)
        return cls(source, messages, lines)

    def check(self, options: AskOptions) -> None:
        """Raise `click.UsageError` where the worker would refuse it, with the line or the number of the message."""
        reason = refusal(options, as_flag, messages=self.messages)
        if reason is not None:
            raise _wrong(self._source, _NUMBER.sub(self._place, reason, count=1).rstrip("."))

    def _place(self, found: re.Match[str]) -> str:
        number = int(found[1])
        place = (
            f"message {number + 1} of {len(self.messages)}" if self._lines is None else f"line {self._lines[number]}"
        )
        return f"{place}, " if found[0].endswith(".") else place


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong(name, "is not UTF-8") from None
    except OSError as error:
        raise _wrong(name, f"cannot be read: {error.strerror}") from None


def _not_json(source: str, error: json.JSONDecodeError, line: int | None = None) -> click.UsageError:
    return _wrong(source, f"line {line or error.lineno}, column {error.colno}: no JSON: {error.msg}")


def _wrong(source: str, what: str) -> click.UsageError:
    return click.UsageError(f"--messages: {shown_in_line(source)}: {shown_in_line(what)}.")
