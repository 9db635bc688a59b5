"""The commands that begin with a slash."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from inferbus_client.cli.chat.view import View
from inferbus_client.client import Client
from inferbus_client.options import AskOptions
from inferbus_client.topics import is_session
from inferbus_client.wire import Params

_SAMPLING: Final[dict[str, Callable[[str], Any]]] = {"temperature": float, "top_p": float, "max_tokens": int}

HELP: Final = {
    "help": "this list",
    "clear": "clear the screen; the conversation goes on",
    "reset": "make the model forget the conversation",
    "system": "TEXT: replace the system prompt from the next message on",
    "settings": "show the settings; NAME VALUE changes one, NAME alone takes it back",
    "session": "show the session; ID goes to that one, `new` to a fresh one",
    "quit": "leave (or Ctrl-D)",
}
NAMES: Final = tuple(HELP)


class Quit(Exception):  # noqa: N818 - it ends the chat, nothing went wrong
    """The person wants to leave."""


class SlashCommands:
    """Carries out slash commands for one conversation, whose options they change."""

    def __init__(self, client: Client, view: View, options: AskOptions) -> None:
        self._client = client
        self._view = view
        self._options = options

    def run(self, line: str) -> None:
        """Carry one out.

        Raises:
            Quit: it was /quit.
            InferbusError: the worker refused what it asks for.
        """
        name, _, rest = line[1:].strip().partition(" ")
        command = getattr(self, f"_{name}", None) if name in NAMES else None
        if command is None:
            self._view.note(f"There is no /{name}; /help lists the commands.")
        else:
            command(rest.strip())

    def _help(self, _rest: str) -> None:
        width = max(map(len, NAMES)) + 1
        self._view.note("\n".join(f"/{name.ljust(width)} {text}" for name, text in HELP.items()))
        self._view.note("Alt-Enter begins a new line. Ctrl-C stops an answer; a second one leaves.")

    def _clear(self, _rest: str) -> None:
        self._view.clear()

    def _reset(self, _rest: str) -> None:
        self._client.reset()
        self._view.note("The conversation is forgotten.")

    def _system(self, text: str) -> None:
        if not text:
            self._view.note("Usage: /system TEXT")
            return
        self._options["system_prompt"] = text
        self._view.note("The system prompt is replaced with the next message.")

    def _session(self, name: str) -> None:
        if name == "new":
            self._client.new_session()
        elif name and not is_session(name):
            self._view.note("A session's name consists of letters, digits and _ . : - (at most 128).")
            return
        elif name:
            self._client.session = name
        self._view.note(f"Session: {self._client.session}")

    def _settings(self, text: str) -> None:
        name, _, value = text.partition(" ")
        name = name.replace("-", "_")
        if name in _SAMPLING:
            self._change_sampling(name, value.strip())
        elif name in Params.model_fields:
            self._change_parameter(name, value.strip())
        elif name:
            self._view.note(f"There is no setting {name}. There are: {', '.join((*_SAMPLING, *Params.model_fields))}")
            return
        self._show_settings()

    def _change_sampling(self, name: str, value: str) -> None:
        try:
            changed = _SAMPLING[name](value) if value else None
        except ValueError:
            self._view.note(f"{name} takes a number.")
            return
        self._options[name] = changed  # type: ignore[literal-required]

    def _change_parameter(self, name: str, value: str) -> None:
        parameters = dict(self._options.get("params") or {})
        parameters.pop(name, None)
        if value:
            parameters[name] = _parsed(value)
        self._options["params"] = parameters or None

    def _show_settings(self) -> None:
        shown: dict[str, object] = {name: self._options.get(name) for name in _SAMPLING}
        shown |= self._options.get("params") or {}
        self._view.note("\n".join(f"{name}: {_or_default(value)}" for name, value in shown.items()))

    def _quit(self, _rest: str) -> None:
        raise Quit


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _or_default(value: object) -> object:
    return "as the project says" if value is None else value
