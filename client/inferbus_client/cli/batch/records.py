"""The files of a batch's answers and errors: a line each, in OpenAI's form, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from pydantic_core import from_json

from inferbus_client.cli.batch.lines import MAX_LINE, Line
from inferbus_client.errors import SettingsError
from inferbus_client.exchange.answer import Answer
from inferbus_client.shapes.openai_answer import completion
from inferbus_client.shown import shown_in_line

_PREFIX: Final = "batch_req_"
#: How each line of ours begins: one that was torn in the middle is known by it.
_BEGINNING: Final = f'{{"id": "{_PREFIX}'.encode()
#: A request's id, and behind it what tells a second try from the first.
_ID: Final = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})(?:-[0-9a-f]+)?")
#: Of a line; an answer may be longer than its request.
_MAX_RECORD: Final = 4 * MAX_LINE


class Outcome(NamedTuple):
    """Why there is no answer.

    Attributes:
        status: as of HTTP; None where the request was never taken.
    """

    code: str
    message: str
    status: int | None = None


def answer_record(line: Line, answer: Answer, model: str) -> dict[str, Any]:
    """An answer as OpenAI's batch output has it, around a chat completion."""
    body = completion(answer, answer.model or model)
    response = {"status_code": 200, "request_id": answer.request_id, "body": body}
    return _record(line, answer.request_id, response, None)


def error_record(line: Line, request_id: str, outcome: Outcome) -> dict[str, Any]:
    """The same for what has no answer."""
    error = {"code": outcome.code, "message": outcome.message}
    response = None
    if outcome.status is not None:
        body = {"error": {**error, "type": outcome.code, "param": None}}
        response = {"status_code": outcome.status, "request_id": request_id, "body": body}
    return _record(line, request_id, response, error)


def _record(line: Line, request_id: str, response: object, error: object) -> dict[str, Any]:
    return {"id": f"{_PREFIX}{request_id}", "custom_id": line.custom_id, "response": response, "error": error}


class Records:
    """One of the two files, open for more. Nobody else may write to it meanwhile.

    Args:
        path: the file; None for standard output, which has no past.

    Raises:
        SettingsError: another run is writing to it, or it holds something else than such records.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = "standard output" if path is None else shown_in_line(str(path))
        self._path = path
        self._file: BinaryIO = (
            open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it lives as long as this does
            if path is None
            else open(path, "a+b" if not path.exists() or path.is_file() else "wb", buffering=0)  # noqa: SIM115, PTH123
        )
        self._has_past = path is not None and path.is_file()
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close it, and leave no empty file behind."""
        with closing(self._file):
            if self._path is not None and self._has_past and self._path.stat().st_size == 0:
                self._path.unlink()

    def past(self) -> set[bytes]:
        """The ids of the requests that earlier runs have written here. A line that was torn at the end is removed."""
        return {digest for digest, _ in self._read()} if self._has_past else set()

    def called(self, requests: set[bytes]) -> str:
        """The `custom_id` of the first record that belongs to one of these."""
        return next((custom_id for digest, custom_id in self._read() if digest in requests), "")

    def clear(self) -> None:
        """Begin anew."""
        if self._has_past:
            self._file.truncate(0)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record, in one piece."""
        left = memoryview(json.dumps(record).encode() + b"\n")
        while left:
            left = left[self._file.write(left) :]

    def _lock(self) -> None:
        """As far as this system has locks."""
        if self._has_past and find_spec("fcntl") is not None:
            import fcntl  # noqa: PLC0415 - not every system has it

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsError(f"another run is writing to {self.name}") from None

    def _read(self) -> Iterator[tuple[bytes, str]]:
        with self._path.open("rb") as file:  # type: ignore[union-attr]
            number, start = 0, 0
            while raw := file.readline(_MAX_RECORD):
                number += 1
                if (found := _ids(raw)) is not None:
                    yield found
                    if not raw.endswith(b"\n"):
                        self._file.write(b"\n")
                        return
                elif not raw.endswith(b"\n") and len(raw) < _MAX_RECORD and _is_torn(raw):
                    self._file.truncate(start)
                    return
                else:
                    raise SettingsError(f"{self.name} line {number} is no record of a batch: name another file")
                start += len(raw)


def _ids(raw: bytes) -> tuple[bytes, str] | None:
    with suppress(ValueError):
        record = from_json(raw)
        if isinstance(record, dict) and (found := _ID.fullmatch(str(record.get("id")))):
            return bytes.fromhex(found[1]), str(record.get("custom_id"))
    return None


def _is_torn(raw: bytes) -> bool:
    """Whether it is the beginning of a record of ours, or what a power cut leaves of one."""
    return raw.startswith(_BEGINNING) or _BEGINNING.startswith(raw) or not raw.strip(b"\0")


def name_of(identity: str, output: Path | None) -> str:
    """What this batch is called on the bus: the same for the same requests and the same file of answers."""
    where = "" if output is None else os.path.realpath(output)
    return blake2b(f"{identity} {where}".encode(), digest_size=16).hexdigest()
