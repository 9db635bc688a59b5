"""The lanes that a worker knows, as the scripts read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from inferbus_worker.settings.projects import ProjectSettings

#: The least that a step of priority can be worth, in seconds.
_LEAST_AGEING: Final = 0.001


def lane_name(project: str, model: str) -> str:
    """No project has a slash."""
    return f"{project}/{model}"


def plan(
    projects: Mapping[str, ProjectSettings], lanes: Mapping[str, Sequence[str]], size: int, ageing: float
) -> bytes:
    """What room and turns are decided by, with the places kept for each lane as in `RequestQueue`."""
    total = sum(project.weight for project in projects.values())
    least = 1 if 2 * sum(map(len, lanes.values())) <= size else 0
    rows = [
        (
            lane_name(name, model),
            model,
            project.weight,
            project.priority,
            max(int(size / 2 * project.weight / total / len(lanes[name])), least),
        )
        for name, project in projects.items()
        for model in lanes[name]
    ]
    shared = size - sum(reserved for *_, reserved in rows)
    texts = {"size": size, "shared": shared, "ageing": max(ageing, _LEAST_AGEING) * 1000, "lanes": rows}
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
