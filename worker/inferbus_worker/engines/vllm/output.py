"""What the engine's processes print becomes lines of the worker's log.

They print into a pipe: vLLM's records with a mark and in JSON, the rest (C++ libraries, tracebacks, progress bars) as
it comes. One thread of the worker reads the pipe, and keeps why a process failed: vLLM's own error says no more than
that the cause stands above.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Begins a record; no text contains it.
_MARK: Final = "\x1e"
_END: Final = f"{_MARK}end"
_LONGEST_LINE: Final = 65_536
_COLORS: Final = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK: Final = "Traceback (most recent call last):"
#: What processes say of each other's failures; neither is a cause.
_REFERENCES: Final = ("root cause", "background process")
_PATIENCE: Final = 2.0

log = logging.getLogger("inferbus.engine")


class MarkedRecords(logging.Handler):
    """In a process of the engine: sends each record through standard error to the worker."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            error = record.exc_info[1] if record.exc_info else None
            said = {
                "logger": record.name,
                "level": record.levelno,
                "template": str(record.msg),
                "message": record.getMessage(),
                "cause": None if error is None else " ".join(str(error).split()) or type(error).__name__,
                "exception": "" if error is None else "".join(traceback.format_exception(error)).rstrip(),
            }
            # In one piece: other processes write to the same pipe.
            os.write(2, f"{_MARK}{json.dumps(said)}\n".encode())
        except Exception:  # noqa: BLE001 - as every handler does; a log must not end what it is about
            self.handleError(record)


class _Said(str):
    """A message from another process, and what it was made from."""

    __slots__ = ("template",)
    template: str


class EngineOutput:
    """The pipe and the thread that reads it, from the engine's start to its end."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._is_closed = False
        self._lock = threading.Lock()  # held while numbers of files change hands
        self._causes: list[str] = []
        self._block: list[str] = []  # the lines so far of a traceback that was printed
        self._thread = threading.Thread(target=self._read, name="engine-output", daemon=True)
        self._thread.start()

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """Processes that are started in here print into the pipe; so do this one's C++ libraries meanwhile.

        Raises:
            RuntimeError: it is closed.
        """
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the engine's output is closed")
            kept = [(os.dup(number), number) for number in (1, 2)]
            for _, number in kept:
                os.dup2(self._writing, number)
        try:
            yield
        finally:
            for copy, number in kept:
                os.dup2(copy, number)
                os.close(copy)

    def close(self) -> str | None:
        """Read what has been printed so far, and nothing more.

        Returns:
            Why the first process failed, where one said so.
        """
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.write(self._writing, f"\n{_END}\n".encode())
                self._thread.join(_PATIENCE)
                os.close(self._writing)
        return next((cause for cause in self._causes if not any(words in cause for words in _REFERENCES)), None)

    # From here on: the reading thread.

    def _read(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            rest = b""
            while chunk := pipe.read(_LONGEST_LINE):
                *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
                if len(rest) > _LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    text = line.decode(errors="replace")
                    if text == _END:
                        return
                    self._take(text)

    def _take(self, line: str) -> None:
        mark, _, record = line.rpartition(_MARK)
        try:
            said = json.loads(record) if mark or line.startswith(_MARK) else None
        except ValueError:  # another process has written into it
            said = None
        if isinstance(said, dict):
            self._take_record(said)
        elif line.strip():
            self._take_print(_COLORS.sub("", line))

    def _take_record(self, said: dict[str, object]) -> None:
        if said["cause"]:
            self._causes.append(str(said["cause"]))
        message = _Said(said["message"])
        message.template = str(said["template"])
        logger = logging.getLogger(str(said["logger"]))
        logger.log(int(str(said["level"])), message)
        if said["exception"]:
            logger.debug("the exception of the message before", extra={"exception": said["exception"]})

    def _take_print(self, line: str) -> None:
        """A traceback is put together again, and its last line is a cause; anything else is a line."""
        if line == _TRACEBACK or (self._block and line.startswith(" ")):
            self._block.append(line)
        elif self._block:
            kind, _, text = line.partition(": ")
            self._causes.append(text or kind)
            log.error("a process of the engine ended with %s", kind)
            log.debug("its traceback", extra={"exception": "\n".join([*self._block, line])})
            self._block = []
        else:
            log.info("%s", line)
