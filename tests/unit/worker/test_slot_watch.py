"""What was given up and goes on is counted, also where more is given up while somebody looks."""

from __future__ import annotations

import asyncio

import pytest

from inferbus_worker.engines.remote import slot_watch
from inferbus_worker.engines.remote.slot_watch import SlotWatch


@pytest.mark.parametrize(("freed", "leaked"), [(0, 2), (1, 1), (2, 0)])
def test_what_is_given_up_while_it_looks_is_no_other_s(
    monkeypatch: pytest.MonkeyPatch, freed: int, leaked: int
) -> None:
    monkeypatch.setattr(slot_watch, "_PATIENCE", 0.05)
    monkeypatch.setattr(slot_watch, "_LOOK", 0.01)

    async def watch() -> int:
        is_busy, looks = 2, 0

        async def busy() -> int:
            nonlocal looks
            looks += 1
            if looks == 1:
                watched.given_up()
            return is_busy

        watched = SlotWatch("slot", lambda: 0, busy)
        is_busy -= freed
        watched.given_up()
        assert watched._look is not None
        await asyncio.wait_for(watched._look, 10)
        return watched.leaked

    assert asyncio.run(watch()) == leaked
