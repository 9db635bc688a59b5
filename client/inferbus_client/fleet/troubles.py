"""What is wrong on the bus now, in sentences: each from a worker's own figures, of the last seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import Stats
from inferbus_client.contract.wire import FAILURES
from inferbus_client.fleet.columns import STATE_MEANINGS, milliseconds
from inferbus_client.fleet.events import FINE, named
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.units import counted

#: "Now" are so many seconds at least: of fewer nothing can be said.
_NOW: Final = 4.0
#: Workers are asked every two seconds, and answer within one.
SILENCE: Final = 5.0
#: So many times slower than before is slow, where it is so many milliseconds slower, too; before are so many answers.
_SLOWER: Final = 3.0
_SLOWER_MS: Final = 300.0
_ANSWERS: Final = 5
_WORTH_A_GLANCE: Final = 0.5
#: Waiting requests that are worth a sentence, however many run.
_LINE: Final = 10
#: Slots of one worker that get a sentence each.
_MOST: Final = 5
_TOTAL: Final = "totalMs"

_REFUSALS: Final = {
    "invalid_request": "cannot be understood",
    "context_too_long": "too long for the model",
    "session_busy": "their session's last one still runs",
    "message_too_large": "too large",
    "rate_limited": "somebody asks more than the limits allow",
    "overloaded": "the queue is full",
    "engine_unavailable": "the model is not available",
    "shutting_down": "it stops",
}

Level = Literal["fault", "note"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One sentence. A fault wants somebody to look; a note says why figures are as they are."""

    level: Level
    words: str


def troubles_of(name: str, view: WorkerView) -> Iterator[Trouble]:
    """What a worker's figures show that is no good. Nothing of one that has gone, or has told no figures."""
    stats = view.stats
    if stats is None or view.is_gone:
        return
    worker, before = named(name), _before(view)
    yield from _of_slots(worker, stats)
    if stats.group is not None and not stats.group.reached:
        why = f": {named(stats.group.reason)}" if stats.group.reason else ""
        yield Trouble("fault", f"{worker} does not reach the store of group {named(stats.group.name)}{why}.")
    if before is not None:
        yield from _of_standstill(worker, view)
        yield from _of_slowness(worker, before, stats)
    # What has happened once is told as long as there is a reading from before it.
    if len(view.readings) > 1:
        yield from _of_refusals(worker, view.readings[0], stats)
    yield from _of_the_queue(worker, stats)
    if filling := what_fills(view):
        yield Trouble("note", f"{worker}: {filling}.")


def what_fills(view: WorkerView) -> str:
    """What is worth a glance: bounded things that are more than half full, and replies that were given up."""
    if view.stats is None or view.is_gone:
        return ""
    full = {
        name: level.now / level.bound
        for name, level in view.stats.levels.items()
        if level.bound and level.now / level.bound > _WORTH_A_GLANCE
    }
    said = [f"{named(name)} {share:.0%} full" for name, share in full.items()]
    dropped = view.stats.replies_dropped
    return ", ".join([*said, f"{counted(dropped, 'reply', 'replies')} dropped"] if dropped else said)


def refused(earlier: Stats, later: Stats) -> dict[str, int]:
    """Requests refused between two readings, by code. Codes that the contract does not have are `other`."""
    found: dict[str, int] = {}
    for code, count in later.rejected.items():
        since = count - earlier.rejected.get(code, 0)
        if since > 0:
            known = code if code in FAILURES else "other"
            found[known] = found.get(known, 0) + since
    return found


def _before(view: WorkerView) -> Stats | None:
    """The latest reading that is old enough to tell what is now by; None where there is none."""
    latest = view.readings[-1].uptime_s
    old = [reading for reading in view.readings if reading.uptime_s <= latest - _NOW]
    return old[-1] if old else None


def _of_slots(worker: str, stats: Stats) -> Iterator[Trouble]:
    bad = [
        (f"Slot {named(slot_name)}", named(word))
        for model in stats.models.values()
        for slot_name, slot in model.slots.items()
        if (word := slot.breaker if slot.state in FINE else slot.state) not in FINE
    ]
    bad += [(f"Model {named(name)}", named(one.state)) for name, one in stats.models.items() if one.state not in FINE]
    for part, word in bad[:_MOST]:
        meaning = f": {STATE_MEANINGS[word]}" if word in STATE_MEANINGS else ""
        yield Trouble("fault", f"{part} of {worker} is {word}{meaning}.")
    if len(bad) > _MOST:
        yield Trouble("fault", f"{len(bad) - _MOST} more of the models and slots of {worker} cannot answer.")


def _of_standstill(worker: str, view: WorkerView) -> Iterator[Trouble]:
    """Requests run, and none of them ends, for longer than they took before."""
    latest = view.readings[-1]
    for model in latest.models.values():
        for slot_name, slot in list(model.slots.items())[:_MOST]:
            began = latest
            for reading in reversed(view.readings):
                if _slot_of(reading, slot_name) != (slot.requests, True):
                    break
                began = reading
            seconds = latest.uptime_s - began.uptime_s
            if not slot.active or seconds < _NOW:
                continue
            words = f"On {named(slot_name)} of {worker} {slot.active} run, and none has ended for {seconds:.0f} s"
            usual = began.histograms.get(_TOTAL, Histogram())
            most = usual.percentile(0.95)
            if usual.count < _ANSWERS or most is None:
                yield Trouble("note", f"{words}.")
            elif seconds * 1000 > _SLOWER * most:
                before = f"before, 19 of 20 took {milliseconds(most)} at most"
                yield Trouble("fault", f"{words}; {before}. The model is slow.")


def _slot_of(reading: Stats, name: str) -> tuple[int, bool] | None:
    """How many attempts have ended on a slot, and whether any runs."""
    for model in reading.models.values():
        if name in model.slots:
            return model.slots[name].requests, model.slots[name].active > 0
    return None


def _of_slowness(worker: str, before: Stats, stats: Stats) -> Iterator[Trouble]:
    """Answers take longer than they did."""
    usual = before.histograms.get(_TOTAL, Histogram())
    now = stats.histograms.get(_TOTAL, Histogram()).since(usual)
    was, is_now = usual.percentile(0.5), now.percentile(0.5)
    if was is None or is_now is None or usual.count < _ANSWERS:
        return
    if is_now > _SLOWER * was and is_now - was > _SLOWER_MS:
        waits = stats.histograms.get("queueMs", Histogram()).since(before.histograms.get("queueMs", Histogram()))
        waiting = waits.percentile(0.5) or 0.0
        why = "they wait in the queue" if waiting > is_now / 2 else "the model is slow"
        yield Trouble(
            "fault",
            f"{worker} is slow: half of its answers take {milliseconds(is_now)} or more now, and took "
            f"{milliseconds(was)} before; {why}.",
        )


def _of_refusals(worker: str, before: Stats, stats: Stats) -> Iterator[Trouble]:
    seconds = stats.uptime_s - before.uptime_s
    found = sorted(refused(before, stats).items(), key=lambda one: -one[1])
    if found:
        kinds = ", ".join(
            f"{count} {code}" + (f" ({_REFUSALS[code]})" if code in _REFUSALS else "") for code, count in found
        )
        total = counted(sum(count for _, count in found), "request")
        yield Trouble("fault", f"{worker} has refused {total} in the last {seconds:.0f} s: {kinds}.")
    failed = stats.errors - before.errors
    if failed > 0:
        words = f"{worker}: {counted(failed, 'request')} ended without an answer in the last {seconds:.0f} s"
        yield Trouble("note", f"{words}: failed, cancelled, or too late.")
    dropped = stats.replies_dropped - before.replies_dropped
    if dropped > 0:
        replies = counted(dropped, "reply", "replies")
        yield Trouble("fault", f"{worker} has dropped {replies} in the last {seconds:.0f} s: its link is bad.")


def _of_the_queue(worker: str, stats: Stats) -> Iterator[Trouble]:
    longest = max(stats.queued_by_project.items(), key=lambda one: one[1], default=None)
    whose = "" if longest is None else f", {longest[1]} of them project {named(longest[0])}'s"
    if stats.queue_size and stats.queued > _WORTH_A_GLANCE * stats.queue_size:
        share, waits = stats.queued / stats.queue_size, counted(stats.queued, "request waits", "requests wait")
        yield Trouble("fault", f"The queue of {worker} is {share:.0%} full: {waits}{whose}.")
    elif stats.queued >= max(_LINE, stats.capacity or 0):
        at_once = "" if stats.capacity is None else f"; {stats.capacity} run at once"
        yield Trouble("note", f"{stats.queued} requests wait at {worker}{whose}{at_once}.")
