"""Trial 52: two models whose servers the worker starts, in memory that holds one of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from conftest import StartWorker
from support.models import models_file
from support.mosquitto import Mosquitto
from support.needs import needs_llama_server, needs_module
from support.processes import assert_gone, family, is_running
from support.replies import Replies
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_TINY: Final = Path(__file__).parents[1] / "support" / "tiny_server.py"
_LONG: Final = "one two three four five six seven eight"


def tiny_slot() -> dict[str, Any]:
    """A small server that takes two seconds for `_LONG`, and leaves a grandchild behind."""
    command = [sys.executable, str(_TINY), "--port", "{port}", "--per-word", "0.25", "--fork-grandchild"]
    return {"backend": "vllm", "model": "tiny", "manage": {"command": command}}


def llama_slot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A real llama.cpp with the demo model, by the command that the worker knows."""
    needs_module("gguf")
    from support.gguf_demo import write_demo  # noqa: PLC0415 - which imports gguf

    monkeypatch.setenv("PATH", str(Path(needs_llama_server()).parent), prepend=":")
    write_demo(folder / "demo.gguf")
    return {"backend": "llama.cpp", "path": str(folder / "demo.gguf")}


def servers_of(worker: WorkerProcess) -> int:
    """How many servers run: of our own processes those that listen somewhere."""
    return sum(listens(one) for one in family(worker.pid)[1:] if is_running(one))


def listens(process: psutil.Process) -> bool:
    try:
        return bool(process.net_connections("tcp"))
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


@pytest.mark.parametrize("kind", ["tiny", *(["llama"] if size(0, 1) else [])])
def test_two_models_in_memory_for_one(
    broker: Mosquitto,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: Callable[..., None],
    kind: str,
) -> None:
    """In turns more than once a minute they would evict each other: so the short form ends with the first return."""
    project = f"turns-{kind}"
    slot = tiny_slot() if kind == "tiny" else llama_slot(tmp_path, monkeypatch)
    models = {name: {**slot, "memory": "3 GiB", "when": "on-demand", "concurrency": 2} for name in ("ant", "bee")}
    file = models_file(tmp_path, models, {project: {"model": "ant", "models": ["bee"]}})
    file.write_text(json.dumps({**json.loads(file.read_text()), "memory_budget": "4 GiB"}))
    turns = size(0, 4)
    with Replies(broker, project, echo=False) as replies:
        worker = start_worker(config=file, rate_limit="off")
        assert servers_of(worker) == 0
        began = time.monotonic()
        assert replies.ask(_LONG, timeout=60)["model"] == "ant"
        busy = replies.send(_LONG, model="ant", stream=True)
        until(lambda: replies.streamed(busy))
        other = replies.send(_LONG, model="bee")
        until(lambda: [one for one in replies.of(other) if one["type"] == "accepted"])
        assert (replies.end(busy, 60)["type"], servers_of(worker) <= 1) == ("done", True)
        assert replies.end(other, 60)["model"] == "bee"
        for turn in range(1 + turns):
            end = replies.ask(_LONG, model=["ant", "bee"][turn % 2], timeout=180)
            assert (end["type"], end.get("model")) == ("done", ["ant", "bee"][turn % 2])
            assert servers_of(worker) == 1
        seconds = time.monotonic() - began
        replies.settle()
        everybody = family(worker.pid)
        worker.kill()
        assert_gone(everybody)
        report(52, f"{kind}: {4 + turns} answers in {seconds:.1f} s, after SIGKILL 0 processes left", replies.ledger)
        tally = replies.ledger.tally()
        assert (tally["lost"], tally["duplicate"]) == (0, 0)
