"""Hypothesis draws anew in every run, also where CI is set, and says how to draw a failure again."""

from __future__ import annotations

from hypothesis import settings


def test_examples_are_drawn_anew_and_a_failure_says_how_to_draw_it_again() -> None:
    assert not settings().derandomize
    assert settings().print_blob


def test_a_busy_machine_is_no_reason_to_fail() -> None:
    assert settings().deadline is None
