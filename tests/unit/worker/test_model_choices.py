"""What a worker's presence says of the models that a project's requests may name."""

from __future__ import annotations

from inferbus_client.contract.presence import MAX_NAMES, Presence
from inferbus_worker.settings.worker import Settings

MODELS = {"ant": {"engine": "simulated"}, "bee": {"engine": "simulated"}}


def test_the_project_s_own_comes_first() -> None:
    projects = {"one": {"model": "ant"}, "two": {"model": "bee", "models": ["ant", "bee"]}}
    assert Settings.load({"models": MODELS, "projects": projects}).model_choices == {
        "one": ("ant",),
        "two": ("bee", "ant"),
    }


def test_where_there_is_but_one_nothing_is_said() -> None:
    assert Settings.load({"engine": "simulated"}).model_choices == {}


def test_more_projects_than_a_presence_holds_are_no_trouble() -> None:
    projects: dict[str, dict[str, str]] = {f"project-{number}": {"model": "ant"} for number in range(150)}
    settings = Settings.load({"models": MODELS, "projects": projects})
    said = Presence(worker="w", state="ready", projects=tuple(projects), choices=settings.model_choices)
    assert len(said.choices) == MAX_NAMES
    assert Presence.model_validate_json(said.encode()) == said
