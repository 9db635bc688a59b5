"""The engine in this process is lost: what it has shown nothing of goes to another slot or model, the rest ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.base import ChatCall, ContextTooLongError, EngineDeadError
from inferbus_worker.engines.slots import Lease
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, ScriptedEngine, answer, replies

pytestmark = pytest.mark.usefixtures("state")

PROJECTS = {"general": ProjectSettings(model="here", models=["here", "far", "down"])}


def dying(words: str = "") -> Script:
    def script(_call: ChatCall) -> Iterator[Chunk]:
        if words:
            yield Chunk(words)
        raise EngineDeadError("the core has ended")

    return script


def rooms_with(script: Script, *, slots: int = 1, fallback: dict[str, list[str]] | None = None) -> Rooms:
    """Rooms with `here` in this process first, and models that may stand in for it."""
    elsewhere = [ScriptedEngine(answer("another slot")) for _ in range(slots - 1)]
    models = {
        "here": [ScriptedEngine(script), *elsewhere],
        "far": [ScriptedEngine(answer("far"))],
        "down": [ScriptedEngine(answer("nothing"))],
    }
    rooms = Rooms(models=models, fallback=fallback or {}, projects=PROJECTS, rate=None)
    rooms.slot.is_here = True
    rooms.models["down"].slots[0].state = "down"
    return rooms


def lose(rooms: Rooms) -> None:
    """What the main thread does, once it has seen it."""
    rooms.slot.state = "dead"
    rooms.overdue.look()


def lose_at_its_end(rooms: Rooms) -> None:
    """The main thread sees it while the request's thread gives its slot back."""
    release = rooms.slots.release

    def and_see(lease: Lease, error: BaseException | None) -> None:
        lose(rooms)
        release(lease, error)

    rooms.slots.release = and_see  # type: ignore[method-assign]


def ended(rooms: Rooms) -> list[dict[str, Any]]:
    """Run what goes on; the terminal replies."""
    return [reply for reply in replies(rooms.work()) if reply["type"] in {"done", "error"}]


@pytest.mark.parametrize("is_seen_first", [False, True])
@pytest.mark.parametrize(
    ("slots", "fallback", "text"),
    [
        (2, {}, "another slot"),
        (1, {"here": ["far"]}, "far"),
        (2, {"here": ["far"]}, "another slot"),
        (1, {"here": ["down", "far"]}, "far"),
        (1, {"here": ["down"], "down": ["far"]}, "far"),
    ],
)
def test_what_has_shown_nothing_is_answered_elsewhere(
    slots: int,
    fallback: dict[str, list[str]],
    text: str,
    is_seen_first: bool,  # noqa: FBT001 - drawn
) -> None:
    rooms = rooms_with(dying(), slots=slots, fallback=fallback)
    rooms.ask(reply="json")
    job = rooms.take()
    assert job.lease is not None
    assert job.lease.slot is rooms.slot
    if is_seen_first:
        lose_at_its_end(rooms)
    rooms.turns.run(job)
    lose(rooms)
    (done,) = ended(rooms)
    assert (done["type"], done["text"]) == ("done", text)
    assert rooms.left_behind == NOTHING


@pytest.mark.parametrize("stream", [False, True])
def test_what_runs_while_the_engine_is_given_up_is_answered_elsewhere_unless_it_was_shown(
    stream: bool,  # noqa: FBT001 - drawn
) -> None:
    """One that hangs says nothing of its end; whoever waits for it is told by the main thread."""

    def hanging(_call: ChatCall) -> Iterator[Chunk]:
        yield Chunk("half")
        lose(rooms)
        yield Chunk("an answer")

    rooms = rooms_with(hanging, fallback={"here": ["far"]})
    rooms.ask(reply="json", stream=stream)
    rooms.turns.run(rooms.take())
    rooms.overdue.look()
    (end,) = ended(rooms)
    assert end.get("code", end.get("text")) == ("engine_unavailable" if stream else "far")
    assert rooms.left_behind == NOTHING


def test_a_prompt_that_is_asked_again_meanwhile_is_answered_elsewhere_too() -> None:
    """The main thread gave up a generation that had ended by itself just then; the next one must not be forgotten."""

    def hanging(call: ChatCall) -> Iterator[Chunk]:
        lose(rooms)
        if len(call.messages) > 1:
            raise ContextTooLongError
        yield from answer("from a lost engine")(call)

    rooms = rooms_with(answer("fine"), fallback={"here": ["far"]})
    rooms.answer(reply="json")
    rooms.models["here"].slots[0].engine.script = hanging  # type: ignore[attr-defined]
    rooms.ask(reply="json")
    rooms.turns.run(rooms.take())
    rooms.overdue.look()
    (done,) = ended(rooms)
    assert (done["type"], done["text"]) == ("done", "far")
    assert rooms.left_behind == NOTHING


def test_an_answer_that_is_there_is_no_loss() -> None:
    """The main thread sees the loss when the slot has been given back, and nothing is written yet."""
    rooms = rooms_with(answer("fine"))
    write = rooms.endings.write

    def and_see(job: Job, outcome: Answer | Failure | None = None) -> None:
        rooms.slot.active += 1  # others are still there
        lose(rooms)
        write(job, outcome)

    rooms.endings.write = and_see  # type: ignore[method-assign]
    rooms.ask(reply="json")
    job = rooms.take()
    rooms.clock.pass_(2)
    rooms.turns.run(job)
    (done,) = ended(rooms)
    assert (done["type"], done.get("text")) == ("done", "fine")


@pytest.mark.parametrize("fallback", [{}, {"here": ["far"]}])
def test_without_anybody_else_it_ends_at_once(fallback: dict[str, list[str]]) -> None:
    rooms = rooms_with(dying(), fallback=fallback)
    rooms.models["far"].slots[0].state = "down"
    rooms.ask(reply="json")
    rooms.turns.run(rooms.take())
    (error,) = ended(rooms)
    assert error["code"] == "engine_unavailable"
    assert rooms.left_behind == NOTHING


def test_what_was_shown_ends_in_an_error() -> None:
    rooms = rooms_with(dying("half"), fallback={"here": ["far"]})
    rooms.ask(stream=True)
    rooms.turns.run(rooms.take())
    (error,) = ended(rooms)
    assert error["code"] == "engine_unavailable"
    assert rooms.left_behind == NOTHING
