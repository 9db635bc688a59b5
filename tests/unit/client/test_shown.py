"""What strangers wrote, as a terminal shows it."""

from __future__ import annotations

import pytest

from inferbus_client.shown import shown, shown_in_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ünïcode and 日本", "plain, ünïcode and 日本"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("from DOS\r\n", "from DOS\n"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\rwritten"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202edef", "abc\\u202edef"),
        ("lone \ud800", "lone \\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_written_out_and_the_rest_stays(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_what_has_one_line_keeps_to_it() -> None:
    assert shown_in_line("worker\n\nready\t\x1b[2J") == "worker ready \\x1b[2J"
