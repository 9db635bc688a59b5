"""The standard streams as a command really finds them: closed, full, or in an encoding that lacks our signs."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import Final

import click

from inferbus_client.cli.terminal import is_dumb

_STANDARD: Final = (0, 1, 2)
_ERRORS: Final = "inferbus.spelled"
_ASCII: Final = "inferbus-ascii"

#: Signs of our own, rich's and a model's typography, for terminals that lack them.
_SPELLED: Final = {
    "…": "...",
    "•": "*",
    "▌": "|",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "--",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    **{chr(sign): "*" for sign in range(0x2800, 0x2900)},  # braille, which spinners are drawn with
}


def prepare() -> None:
    """Make the streams fit for use: what is closed leads nowhere, what cannot be encoded is spelled out."""
    _fill_closed()
    if is_dumb():
        os.environ["TERM"] = "dumb"  # by which rich and prompt_toolkit know one; an empty name means the same
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # in Python's UTF-8 mode half a character would become a surrogate
    codecs.register_error(_ERRORS, _spell)
    codecs.register(_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # click takes ASCII for a mistake in the locale, and writes UTF-8 instead: it must not know.
            ascii_alone = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if ascii_alone else None, errors=_ERRORS)


def read_input() -> str:
    """All of standard input.

    Raises:
        click.UsageError: it is closed, or no text.
    """
    require_input()
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise input_is_no_text() from None


def require_input() -> None:
    """Raise `click.UsageError` where standard input was closed before we began."""
    if sys.__stdin__ is None:
        raise click.UsageError("standard input is closed; there is nothing to ask.")


def input_is_no_text() -> click.UsageError:
    return click.UsageError(f"standard input is not {sys.stdin.encoding.upper()} text.")


def complain(text: str) -> None:
    """Say it on standard error. Where that takes nothing, the exit status has to say it."""
    try:
        click.echo(text, err=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: io.TextIOBase | object) -> None:
    """Let a stream that takes no more lead nowhere: Python's own flush at exit would complain about it again."""
    number = _STANDARD[1] if stream is sys.stdout else _STANDARD[2]
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _fill_closed() -> None:
    """Open the null device in the place of closed streams, else the next file or connection would get their numbers."""
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as we do
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _spell(error: UnicodeError) -> tuple[str, int]:
    """An error handler for encoders: a sign that is known to be missing in ASCII, or the character's number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(
        _SPELLED.get(sign) or sign.encode("unicode_escape", "surrogatepass").decode("ascii") for sign in missing
    ), error.end


def _ascii(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII.replace("-", "_"):
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        incrementalencoder=found.incrementalencoder,
        incrementaldecoder=found.incrementaldecoder,
        streamreader=found.streamreader,
        streamwriter=found.streamwriter,
        name=_ASCII,
    )
