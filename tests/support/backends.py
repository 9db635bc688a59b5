"""Real servers of other makers with the demo model, each on a free port of its own: context managers, and a plugin.

The fixtures `vllm_server`, `mlx_server` and `llama_server` start theirs once for a run of the tests. Where its program
is missing, the test is skipped; in CI it fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from support.mosquitto import free_port
from support.needs import needs_llama_server, needs_module
from support.processes import assert_gone, family
from support.waiting import LOADING, until

_STOP_TIMEOUT: Final = 40.0


class BackendServer:
    """A context manager: inside the `with` the server answers; leaving it stops it, and sees its processes gone.

    Args:
        command: program and arguments; `{port}` and `{folder}` stand for a free port and a folder of its own.
        model: how requests call the model.
        env: more environment.
    """

    def __init__(self, command: Sequence[str], model: str, env: dict[str, str] | None = None) -> None:
        self.model = model
        self._command = command
        self._env = env or {}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-backend-")
        self.port = free_port()
        self.prepare(Path(self._folder.name))
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            if error is not None:
                sys.stderr.write(f"--- log of {self._command[0]} ---\n{self.log}\n")
            self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def prepare(self, folder: Path) -> None:
        """Write what the server reads into its folder."""

    def start(self) -> None:
        """Start it, and return when it has answered; at the same port again after `stop` or `kill`."""
        places = {"port": self.port, "folder": self._folder.name}
        with (Path(self._folder.name) / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [part.format(**places) for part in self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Not even by mistake asks anything the model hub.
                env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **self._env},
                start_new_session=True,
            )
        try:
            until(self._answers, LOADING, every=0.2)
        except BaseException:
            sys.stderr.write(f"--- log of {self._command[0]} ---\n{self.log}\n")
            self.kill()
            raise

    def stop(self) -> None:
        """Stop it with SIGTERM; with SIGKILL if that is not enough."""
        if self.process.poll() is not None:
            return
        relatives = family(self.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
        for process in relatives[1:]:
            if process.is_running():
                process.kill()
        assert_gone(relatives)

    def kill(self) -> None:
        """SIGKILL it and all that it started."""
        if self.process.poll() is not None:
            return
        relatives = family(self.pid)
        for process in relatives:
            process.kill()
        self.process.wait(60)
        assert_gone(relatives)

    def ask(self, *messages: str, timeout: float = 60.0, **more: Any) -> str:
        """A whole greedy answer from `/v1/chat/completions`; `messages` are the user's and the model's in turns."""
        roles = ["user", "assistant"] * len(messages)
        turns = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
        body = {"model": self.model, "messages": turns, "temperature": 0, "max_tokens": 32, **more}
        request = urllib.request.Request(  # noqa: S310 - a URL of ours
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            content: str = json.load(answer)["choices"][0]["message"]["content"]
        return content.strip()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with status {self.process.returncode} before its first answer")
        try:
            return bool(self.ask("Hello"))
        except (OSError, urllib.error.URLError, ValueError):
            return False


class VllmServer(BackendServer):
    """vLLM's own HTTP server, in float32 as the worker serves the demo on a CPU."""

    def __init__(self, *options: str) -> None:
        needs_module("vllm")
        module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(DEMO_PATH)]
        served = ["--served-model-name", "demo", "--host", "127.0.0.1", "--port", "{port}"]
        small = ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"]
        quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONWARNINGS": "ignore"}
        super().__init__([*module, *served, *small, *options], "demo", quiet)


class MlxServer(BackendServer):
    """MLX's server. An unknown model's name would make it ask the hub, so the folder is the name."""

    def __init__(self, *options: str) -> None:
        needs_module("mlx_lm")
        module = [sys.executable, "-m", "mlx_lm", "server", "--model", str(DEMO_PATH)]
        super().__init__([*module, "--host", "127.0.0.1", "--port", "{port}", *options], str(DEMO_PATH))


class LlamaServer(BackendServer):
    """llama.cpp's server, with the demo as GGUF. Of its threads for HTTP it needs one for each connection."""

    def __init__(self, *options: str, slots: int = 4) -> None:
        served = ["--model", "{folder}/demo.gguf", "--alias", "demo", "--host", "127.0.0.1", "--port", "{port}"]
        many = ["--parallel", str(slots), "--ctx-size", str(2048 * slots), "--threads-http", "64", "--threads", "2"]
        super().__init__([needs_llama_server(), *served, *many, *options], "demo")

    def prepare(self, folder: Path) -> None:
        needs_module("gguf")
        from support.gguf_demo import write_demo  # noqa: PLC0415 - which imports gguf

        write_demo(folder / "demo.gguf")


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[VllmServer]:
    with VllmServer() as server:
        yield server


@pytest.fixture(scope="session")
def mlx_server() -> Iterator[MlxServer]:
    with MlxServer() as server:
        yield server


@pytest.fixture(scope="session")
def llama_server() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        yield server
