"""What a server that the worker started prints, as lines of the worker's log."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Final

from inferbus_client.shown import shown_in_line
from inferbus_client.units import counted

#: Characters of a line that are kept, and the most bytes that these take; the rest of it is passed over.
_LONGEST: Final = 500
_LONGEST_BYTES: Final = 4 * _LONGEST
#: Bytes that are read in one go.
_BLOCK: Final = 65536
_LINE_END: Final = re.compile(rb"\r\n?|\n")
#: Lines a second that the log gets; the others are counted.
_PER_SECOND: Final = 100
#: Last lines that are kept, for why the server ended.
_KEPT: Final = 20
_IN_USE: Final = re.compile(
    r"address (already )?in use|EADDRINUSE|errno 98\b|couldn't bind|only one usage of each socket", re.IGNORECASE
)
_COMPLAINS: Final = re.compile(r"error|exception|cannot|could not|couldn't|failed|no such|not found", re.IGNORECASE)

log = logging.getLogger("inferbus.managed")


class ServerOutput:
    """Reads a server's output to its end. One thread runs `read`; any may look at the rest.

    Until requests are served nothing in it can be what a requester said: then it is worth level info, and its last
    lines say why the server did not come up. From then on it is for finding faults: level debug, and nothing is kept.

    Args:
        name: the slot's, for the log.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._is_serving = False
        self._second = 0.0
        self._in_second = 0
        self.says_in_use = False

    def serves(self) -> None:
        """From now on it may print what requesters say."""
        self._is_serving = True
        self._kept.clear()

    @property
    def last_words(self) -> str:
        """The last line that looks like a complaint, else the last of all; empty once requests are served."""
        kept = list(self._kept)
        return next((line for line in reversed(kept) if _COMPLAINS.search(line)), kept[-1] if kept else "")

    def read(self, stream: IO[bytes]) -> None:
        """Log each line until the end of `stream`; a carriage return ends one as well, for bars of progress."""
        with stream:
            begun = b""
            while block := stream.read(_BLOCK):
                *lines, rest = _LINE_END.split(block)
                if lines:
                    lines[0], begun = begun + lines[0], b""
                begun = (begun + rest)[:_LONGEST_BYTES]
                self._note_all(lines)
            self._note_all([begun])

    def _note_all(self, lines: list[bytes]) -> None:
        """Note these; of those that the log has no room for, the last ones alone are looked at."""
        room = max(_PER_SECOND - self._in_second, 0) if self._clock() - self._second < 1 else _PER_SECOND
        passed_over = max(len(lines) - room - _KEPT, 0)
        for line in (*lines[:room], *lines[room + passed_over :]):
            if said := line[:_LONGEST_BYTES].decode(errors="backslashreplace")[:_LONGEST].rstrip():
                self._note(shown_in_line(said))
        self._in_second += passed_over

    def _note(self, line: str) -> None:
        if not self._is_serving:
            self._kept.append(line)
            self.says_in_use = self.says_in_use or _IN_USE.search(line) is not None
        now = self._clock()
        if now - self._second >= 1:
            if self._in_second > _PER_SECOND:
                log.debug("%s: left out %s of its output", self._name, counted(self._in_second - _PER_SECOND, "line"))
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second <= _PER_SECOND:
            log.log(logging.DEBUG if self._is_serving else logging.INFO, "%s: %s", self._name, line)
