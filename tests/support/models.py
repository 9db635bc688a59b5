"""Workers of several models: their file, and what they tell of their slots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inferbus_client.contract import topics
from inferbus_client.contract.presence import ModelStats, Presence, SlotStats, Stats, decode_announcement
from support.listener import Heard, Listener
from support.waiting import until


def models_file(folder: Path, models: dict[str, Any], projects: dict[str, Any]) -> Path:
    """A file that `inferbus serve --config` reads. JSON is YAML as well."""
    file = folder / "models.yaml"
    file.write_text(json.dumps({"models": models, "projects": projects}))
    return file


def stub_slot(url: str, concurrency: int | str = 4, **more: Any) -> dict[str, Any]:
    """A slot at a `StubBackend` that speaks like vLLM, in its default model."""
    return {"backend": "vllm", "url": url, "model": "stub", "concurrency": concurrency, **more}


def presence_of(listener: Listener, worker: str) -> list[Presence]:
    """What a worker has said of itself so far; the listener hears `topics.presence`."""
    return _read(listener, topics.presence(worker), Presence)


def hears_again(listener: Listener, worker: str, losses: int) -> bool:
    """Whether a worker that has lost its connection so often has subscribed again, to say `ready` after that.

    Its log says that it is connected before the broker has seen what it subscribes to.
    """
    said = [one for one in presence_of(listener, worker) if one.state == "ready" and one.instance is not None]
    return any(one.instance is not None and one.instance.connection > losses for one in said)


def ask_stats(listener: Listener, worker: str) -> Stats:
    """Ask a worker for its figures; the listener hears `topics.stats`."""
    topic = topics.stats(worker)
    before = sum(message.topic == topic for message in listener.heard)
    listener.publish(topics.stats_request(worker), "")
    until(lambda: sum(message.topic == topic for message in listener.heard) > before)
    stats: Stats = _read(listener, topic, Stats)[-1]
    return stats


def slots_of(stats: Stats, model: str) -> dict[str, SlotStats]:
    found: ModelStats = stats.models[model]
    return found.slots


def _read(listener: Listener, topic: str, kind: Any) -> list[Any]:
    heard: list[Heard] = [message for message in listener.heard if message.topic == topic]
    return [said for message in heard if (said := decode_announcement(kind, message.payload)) is not None]
