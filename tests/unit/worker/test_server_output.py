"""What a server of ours prints: lines of the log, so many and no more, however much it is."""

from __future__ import annotations

import io
import logging

import pytest

from inferbus_worker.engines.managed import output
from inferbus_worker.engines.managed.output import ServerOutput


def read(said: bytes) -> ServerOutput:
    """A reader of this output, on a clock that stands still."""
    reader = ServerOutput("tiny", clock=lambda: 1000.0)
    stream = io.BytesIO(said)
    reader.read(stream)
    assert stream.closed
    return reader


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("tiny: ") for record in caplog.records]


def test_a_flood_of_lines_costs_next_to_nothing_and_its_last_words_are_kept(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says something of each token would keep the worker busy with reading alone."""
    looked_at = 0
    real = output.shown_in_line  # type: ignore[attr-defined]

    def counted(line: str) -> str:
        nonlocal looked_at
        looked_at += 1
        return str(real(line))

    monkeypatch.setattr(output, "shown_in_line", counted)
    caplog.set_level(logging.INFO, "inferbus.managed")
    reader = read(b"y\n" * 500_000 + b"error: no memory\nbye")
    assert len(caplog.records) == 100
    assert looked_at < 5000
    assert reader.last_words == "error: no memory"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_line_ends_as_lines_do_wherever_what_comes_is_cut(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    caplog.set_level(logging.INFO, "inferbus.managed")
    said = end.join([b"one", "zwölf".encode(), b"", b"  ", b"\xff\x1b[2J", b"x" * 5000, b"last"])
    for block in (1, 2, 3, 5, 7, 65536):
        monkeypatch.setattr(output, "_BLOCK", block)
        caplog.clear()
        read(said)
        assert lines_of(caplog) == ["one", "zwölf", "\\xff\\x1b[2J", "x" * 500, "last"]


def test_a_line_without_end_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferbus.managed")
    reader = read("ü".encode() * 5_000_000)
    assert lines_of(caplog) == ["ü" * 500]
    assert reader.last_words == "ü" * 500
