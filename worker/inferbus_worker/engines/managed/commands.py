"""What starts the server of a slot: its own command, or the one of its backend's row, see `remote.backends`.

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
from pathlib import Path
from typing import Final, NamedTuple

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.remote.backends import BACKENDS
from inferbus_worker.engines.remote.row import Launch
from inferbus_worker.engines.vllm.arguments import DEMO, DEMO_PATH
from inferbus_worker.settings.models import Manage, SlotSettings
from inferbus_worker.settings.vllm_options import arguments

HOST: Final = "127.0.0.1"
_PYTHON: Final = "{python}"


class Command(NamedTuple):
    """What is run: the words, and what its environment has besides the worker's."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def as_asked(slot: SlotSettings, name: str) -> SlotSettings:
    """A managed slot as requests to its server see it: the model as it is called there, and no option that was a flag.

    Args:
        slot: the slot.
        name: how we call the model.
    """
    launch = _launch(slot)
    if launch is None or _manage(slot).command is not None:
        return slot
    change: dict[str, object] = {"model": _filled(launch.serves_as, _places(slot, name))}
    if launch.takes_options:
        change["options"] = {}
    return slot.model_copy(update=change)


def concurrency_of(slot: SlotSettings) -> int:
    """How many requests at once the server is to be ready for; with `auto`, as many as may be found out."""
    if isinstance(slot.concurrency, int):
        return slot.concurrency
    return 1 if slot.backend is None else BACKENDS[slot.backend].concurrency


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
    if launch.takes_options:
        words += arguments(slot.options)
    usual = dict(launch.environment)
    if places["path"] and Path(places["path"]).exists():
        usual |= launch.environment_of_files
    return Command(tuple(words), {key: _filled(value, places) for key, value in usual.items()} | environment)


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
    program = missing(launch)
    if program is not None:
        raise EngineStartError(f"There is no {program} here to start {name} with: {launch.remedy}.")


def missing(launch: Launch) -> str | None:
    """What of the usual command is not on this machine: a program, or a module of Python's. Nothing is run for it."""
    program, *rest = launch.command.split()
    if program != _PYTHON:
        return None if shutil.which(program) is not None else program
    if rest[0] == "-m":
        module = rest[1].partition(".")[0]
        return None if importlib.util.find_spec(module) is not None else module
    home = os.environ.get(launch.home, "")
    return None if home and Path(_filled(rest[0], {"home": home})).is_file() else f"folder in {launch.home}"


def _launch(slot: SlotSettings) -> Launch | None:
    return None if slot.backend is None else BACKENDS[slot.backend].managed


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
    home = os.environ.get(launch.home, "") if launch is not None and launch.home else ""
    own_python = Path(home, "venv", "bin", "python") if home else None
    is_a_name = launch is not None and not launch.needs_path
    return {
        "model": slot.model or (path if is_a_name and path else name),
        "path": path,
        "concurrency": str(at_once),
        "context": str(slot.context),
        "context_in_all": str((slot.context or 0) * at_once),
        "model_folder": str(Path(path).parent),
        "model_name": Path(path).name,
        "python": str(own_python) if own_python is not None and own_python.exists() else sys.executable,
        "host": HOST,
        "temporary": tempfile.gettempdir(),
        "home": home,
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
