"""What the doctor says of a broker, for brokers that are not here."""

from __future__ import annotations

from inferbus_client.fleet.broker_checks import about_dealing, about_persistent
from inferbus_client.fleet.share_trial import Dealing


def test_one_that_hands_over_what_a_dead_member_had() -> None:
    """The one message that it had acknowledged is not missed."""
    seen = Dealing(to_quick=10, most_open=4, handed_over=9, to_dead=0, kept=None)
    assert seen.open == 9
    text = "\n".join(about_dealing(seen))
    assert "was handed to another" in text
    assert "it keeps to a Receive Maximum (4 of 4)" in text
    assert "was handed to another at once" in about_persistent(seen)


def test_one_that_deals_to_who_keeps_up() -> None:
    text = "\n".join(about_dealing(Dealing(to_quick=16, most_open=4, handed_over=3, to_dead=0, kept=None)))
    assert "it deals to who keeps up: a quick member got 16 of 20" in text
    assert "lost" not in text


def test_one_that_keeps_them_and_deals_no_more() -> None:
    seen = Dealing(to_quick=10, most_open=4, handed_over=0, to_dead=0, kept=9)
    assert "(9 of 9 came then), and it was dealt nothing more while it was away" in about_persistent(seen)
