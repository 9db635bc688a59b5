"""Markdown on its way: only finished blocks are printed for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.cli.chat.blocks import split_finished


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one line", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n"),
        ("```\na\n\nb", ""),
        ("```python\na\n\nb\n```\n", ""),
        ("```\na\n\nb\n```\n\nafter", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\nstill code", ""),
        ("~~~\n```\n\nstill code", ""),
    ],
)
def test_a_block_is_finished_by_a_blank_line_outside_code(text: str, finished: str) -> None:
    assert split_finished(text) == (finished, text[len(finished) :])


@given(st.text(alphabet="a\n`~ "), st.text(alphabet="a\n`~ "))
def test_what_is_finished_stays_finished(begun: str, more: str) -> None:
    finished, rest = split_finished(begun)
    assert finished + rest == begun
    assert split_finished(begun + more)[0].startswith(finished)
