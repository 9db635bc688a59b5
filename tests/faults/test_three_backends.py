"""Trial 49: the demo model in the worker's process, on MLX and on llama.cpp, and more sessions than all three take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import StartWorker
from inferbus_client.contract import topics
from support.backends import LlamaServer, MlxServer
from support.inferbus import inferbus
from support.listener import Listener
from support.models import ask_stats, models_file
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.replies import Replies
from support.trials import size
from support.waiting import LOADING, until

_LIMITS: Final = {"here": 16, "mlx": 8, "llama": 4}
_SESSIONS: Final = 64
_NAMES: Final = ("Marie", "Otto", "Lena", "Nora")


@pytest.mark.vllm
def test_one_worker_serves_three_backends(
    broker: Mosquitto,
    start_worker: StartWorker,
    mlx_server: MlxServer,
    llama_server: LlamaServer,
    tmp_path: Path,
    report: Callable[..., None],
) -> None:
    needs_module("vllm")
    models: dict[str, Any] = {
        "here": {"engine": "vllm", "path": "demo"},
        "mlx": {"backend": "mlx", "url": mlx_server.url, "model": mlx_server.model},
        "llama": {"backend": "llama.cpp", "url": llama_server.url},
    }
    models = {name: {**model, "concurrency": _LIMITS[name]} for name, model in models.items()}
    projects = {"three": {"model": "here", "models": list(models)}}
    count = size(10, 200) * _SESSIONS
    worker = start_worker(config=models_file(tmp_path, models, projects), rate_limit="off", max_message_bytes=100_000)
    peaks, shown = dict.fromkeys(models, 0), ""
    with Replies(broker, "three", echo=False) as replies, Listener(broker, topics.stats(worker.id)) as listener:
        until(lambda: {model.state for model in ask_stats(listener, worker.id).models.values()} == {"ready"}, LOADING)
        began = time.monotonic()
        sessions = Sessions(replies, list(models), count)
        while sessions.go_on(1):
            for name, model in ask_stats(listener, worker.id).models.items():
                peaks[name] = max(peaks[name], sum(slot.active for slot in model.slots.values()))
            shown = shown or status_when_full(broker, peaks)
        seconds = time.monotonic() - began
        answered = Counter(replies.end(request).get("model") for request in replies.ledger.rows)
    reached = ", ".join(f"{name} {peaks[name]}/{limit}" for name, limit in _LIMITS.items())
    report(49, f"{_SESSIONS} sessions, {count} requests in {seconds:.0f} s; at once {reached}", replies.ledger)
    tally = replies.ledger.tally()
    outcomes = dict(replies.ledger.outcomes)
    refused = outcomes.pop("overloaded", 0)  # by a server, on a machine that is busy with other things
    assert outcomes == {"done": count}
    assert refused < count / 20
    assert (tally["lost"], tally["duplicate"], tally["leaked"]) == (0, 0, 0)
    assert set(answered) - {None} == set(models)
    assert peaks == _LIMITS
    assert [part for part in (*models, *(f"/{limit}" for limit in _LIMITS.values())) if part not in shown] == []


class Sessions:
    """A closed loop: each session asks its model again as soon as it has been answered, `count` times in all.

    Who is refused asks once more, as the contract says.
    """

    def __init__(self, replies: Replies, models: list[str], count: int) -> None:
        self._replies = replies
        self._models = models
        self._left = count
        self._under_way: dict[str, int] = {}
        for session in range(_SESSIONS):
            self._ask(session)

    def go_on(self, seconds: float) -> bool:
        """Keep them busy for so long; whether there is more to come."""
        until_ = time.monotonic() + seconds
        while self._under_way and time.monotonic() < until_:
            for request, session in list(self._under_way.items()):
                if ends := self._replies.ledger.rows[request].ends:
                    self._left += ends == ["overloaded"]
                    del self._under_way[request]
                    self._ask(session)
            time.sleep(0.01)
        return bool(self._under_way)

    def _ask(self, session: int) -> None:
        if not self._left:
            return
        self._left -= 1
        request = self._replies.send(
            f"My name is {_NAMES[self._left % len(_NAMES)]}.",
            session=f"s{session}",
            model=self._models[session % len(self._models)],
            maxTokens=48,
            stream=self._left % 2 == 0,
        )
        self._under_way[request] = session


def status_when_full(broker: Mosquitto, peaks: dict[str, int]) -> str:
    """What `inferbus status` prints, once each model has had as much as it takes."""
    return inferbus("status", "--once", "--broker", broker.url).stdout if peaks == _LIMITS else ""
