"""The file of requests: read line by line, as often as needed, and never held as a whole."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from shutil import copyfileobj
from typing import Any, BinaryIO, Final, NamedTuple

from pydantic_core import from_json

from inferbus_client.cli.terminal import FaultsError
from inferbus_client.errors import SettingsError
from inferbus_client.shapes.openai_request import invalid
from inferbus_client.shown import shown_in_line

#: Bytes of one line. A conversation may have images in it; a worker takes 1 MiB unless it was told otherwise.
MAX_LINE: Final = 16 * 1024 * 1024
#: Characters of an id, which is repeated in the answer.
MAX_ID: Final = 512
#: Faults that are listed; a file that is something else altogether has one a line.
_LISTED: Final = 5
_DIGEST: Final = 16
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_KNOWN: Final = frozenset({"custom_id", "method", "url", "body"})
_URL: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Line:
    """One request.

    Attributes:
        number: which line, from 1.
        custom_id: what the file calls it.
        digest: of all that the line says; so it is the same whenever the line is.
        fields: the line's object.
    """

    number: int
    custom_id: str
    digest: bytes
    fields: dict[str, Any]

    @property
    def body(self) -> object:
        """What is asked.

        Raises:
            InvalidRequestError: what stands around it asks for something else than a completion.
        """
        if unknown := sorted(self.fields.keys() - _KNOWN):
            raise invalid(f"{unknown[0]}: is not known.")
        if self.fields.get("method") != "POST":
            raise invalid("method: must be POST.")
        if self.fields.get("url") != _URL:
            raise invalid(f"url: must be {_URL}.")
        return self.fields.get("body")


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        identity: what no other file has.
        total: how many requests.
        answered: how many of them have answers already.
    """

    identity: str
    total: int
    answered: int


class LineFaultError(ValueError):
    """A line that is no request of a batch.

    Attributes:
        number: which line, from 1.
        is_end: whether nothing behind it is worth a look.
    """

    def __init__(self, number: int, what: str, *, is_end: bool = False) -> None:
        super().__init__(f"line {number}: {what}")
        self.number = number
        self.is_end = is_end


def rewindable(path: str) -> BinaryIO:
    """A file that can be read twice: standard input (`-`) and pipes are copied to the disk first.

    Raises:
        OSError: it cannot be read.
    """
    file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115, PTH123 - the caller closes it
    if file.seekable():
        return file
    with file:
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        copyfileobj(file, copy)
    copy.seek(0)
    return copy


class Requests:
    """A file of requests.

    Args:
        file: what `rewindable` has opened.
        name: what messages call it.
        salt: what else decides the answers, besides a line's own words: part of every digest.
    """

    def __init__(self, file: BinaryIO, name: str, salt: str = "") -> None:
        self.name = shown_in_line(name)
        self._file = file
        self._start = file.tell()
        self._salt = salt.encode()

    def read(self) -> Iterator[Line | LineFaultError]:
        """Each line that is not blank, from the beginning."""
        self._file.seek(self._start)
        number = 0
        while raw := self._file.readline(MAX_LINE + 1):
            number += 1
            whole = len(raw) <= MAX_LINE or raw.endswith(b"\n")
            while not raw.endswith(b"\n") and (more := self._file.readline(MAX_LINE + 1)):
                raw = raw[:1] + more[-1:]  # only where it ends is of interest
            if not whole:
                yield LineFaultError(number, f"has more than {MAX_LINE // 1024 // 1024} MiB")
                continue
            if number == 1:
                raw = raw.removeprefix(_BYTE_ORDER_MARK)
            if raw := raw.strip():
                try:
                    yield self._line(number, raw)
                except LineFaultError as fault:
                    yield fault

    def check(self, answered: set[bytes]) -> Contents:
        """Look through the whole file, before anything is sent.

        Args:
            answered: the ids of requests that have answers.

        Raises:
            SettingsError: it is no file of requests, or two have one id.
        """
        whole = blake2b(self._salt)
        seen: set[bytes] = set()
        faults: list[LineFaultError] = []
        more = known = 0
        for line in self.read():
            if isinstance(line, Line):
                digest = _digest(line.custom_id.encode())
                whole.update(line.digest)
                known += line.digest in answered
                if digest not in seen:
                    seen.add(digest)
                    continue
                fault = LineFaultError(line.number, f"custom_id {line.custom_id!r} stands on an earlier line, too")
            else:
                fault = line
            more += len(faults) >= _LISTED
            faults += [fault] if len(faults) < _LISTED else []
            if fault.is_end:
                break
        if faults:
            raise FaultsError(self._in_words(faults, more))
        if not seen:
            raise SettingsError(f"{self.name} has no requests in it")
        return Contents(whole.hexdigest(), len(seen), known)

    def unknown(self, requests: set[bytes]) -> set[bytes]:
        """Those of these requests that are not in the file."""
        left = set(requests)
        left.difference_update(line.digest for line in self.read() if isinstance(line, Line))
        return left

    def _line(self, number: int, raw: bytes) -> Line:
        if b"\0" in raw:
            raise LineFaultError(number, "is no text", is_end=True)
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise LineFaultError(number, "is not UTF-8", is_end=True) from None
        try:
            fields = from_json(raw)
        except ValueError as error:
            raise LineFaultError(number, f"is no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise LineFaultError(number, "is no JSON object")
        custom_id = fields.get("custom_id")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID:
            raise LineFaultError(number, f"custom_id must be a text of 1 to {MAX_ID} characters")
        return Line(number, custom_id, _digest(raw, self._salt), fields)

    def _in_words(self, faults: list[LineFaultError], more: int) -> list[str]:
        rest = [f"  and {more} more"] if more else []
        return [
            f"{self.name} is no file of requests, and nothing was sent:",
            *(f"  {fault}" for fault in faults),
            *rest,
        ]


def _digest(words: bytes, salt: bytes = b"") -> bytes:
    return blake2b(words, digest_size=_DIGEST, key=_digest(salt) if salt else b"").digest()
