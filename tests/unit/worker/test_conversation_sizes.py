"""What a conversation takes in memory, as its bounds count it."""

from __future__ import annotations

from inferbus_worker.group.writing import write_turn
from inferbus_worker.state.conversation import Change, Conversation


def test_a_system_prompt_counts_as_much_when_it_goes_as_when_it_came() -> None:
    """Whatever was done with it meanwhile: Python keeps a text's UTF-8 beside it, once somebody has asked for that."""
    change = Change(system_prompt="".join(["caf", chr(0xE9)]))
    with_it = Conversation().after(change)
    write_turn(change, with_it)
    assert with_it.bytes > Conversation().bytes
    assert with_it.after(Change(system_prompt="")).bytes == Conversation().bytes
