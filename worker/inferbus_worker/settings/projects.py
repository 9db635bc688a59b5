"""What a project may say for itself, and how projects are named."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from inferbus_client.contract import topics
from inferbus_client.units import Written, parts
from inferbus_worker.chat import Thinking
from inferbus_worker.settings.rates import OwnRate

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]


class ProjectSettings(Written):
    """One project: what its requests get where they do not say, and its place in the queue.

    A higher `priority` goes first (one step is worth `ageing` seconds of waiting); among equals each project gets
    turns in proportion to its `weight`. `max_tokens_cap` and `project_rate_limit` stand in the place of the worker's.
    `model` is the one that answers requests which name none, and `models` are those that they may name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    system_prompt: str | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    max_tokens_cap: MaxTokens | None = None
    project_rate_limit: OwnRate = "inherit"
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    thinking: Thinking = "hide"
    response_format: bool = False
    tools: bool = False
    model: str | None = None
    models: list[str] = Field(default_factory=list)


def _names_to_projects(value: object) -> object:
    """`--project a --project b` (or `a,b`, or a plain list in the file) serves those projects with default settings."""
    if isinstance(value, list | tuple) and all(isinstance(names, str) for names in value):
        value = ",".join(value)
    return {name: {} for name in parts(value)} if isinstance(value, str) else value


def _check_projects(projects: dict[str, ProjectSettings]) -> dict[str, ProjectSettings]:
    for name in projects:
        if not topics.is_project(name):
            raise ValueError(f"{name!r} is no project name: it must match {topics.NAME}")
    if not projects:
        raise ValueError("at least one project is needed")
    return projects


Projects = Annotated[
    dict[str, Annotated[ProjectSettings, BeforeValidator(lambda value: {} if value is None else value)]],
    BeforeValidator(_names_to_projects),
    AfterValidator(_check_projects),
]
