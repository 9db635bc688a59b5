"""The commands that begin with a slash."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from inferbus_client.cli.chat.transcript import Transcript
from inferbus_client.cli.chat.view import View
from inferbus_client.cli.lookout import Lookout
from inferbus_client.cli.sampling import refusal
from inferbus_client.client import Client
from inferbus_client.contract.topics import is_session
from inferbus_client.contract.wire import Params
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.options import AskOptions
from inferbus_client.shown import shown_in_line

_SAMPLING: Final[dict[str, Callable[[str], Any]]] = {"temperature": float, "top_p": float, "max_tokens": int}

#: Between a setting's name and its value.
_BETWEEN: Final = re.compile(r" *[ =]")

HELP: Final = {
    "help": "this list",
    "clear": "clear the screen; the conversation goes on",
    "reset": "make the model forget the conversation; a system prompt of yours stays",
    "retry": "send your last message again",
    "save": "FILE: write what was said into a new file",
    "system": "TEXT: replace the system prompt from the next message on",
    "model": "show the model, and which there are; NAME asks that one from now on, `-` the project's own again",
    "settings": "show the settings; NAME VALUE changes one, NAME alone takes it back",
    "session": "show the session; ID goes to that one, `new` to a fresh one",
    "status": "show the connection, who serves here, and what the last answer took",
    "quit": "leave (or Ctrl-D)",
}
NAMES: Final = tuple(HELP)


class Quit(Exception):  # noqa: N818 - it ends the chat, nothing went wrong
    """The person wants to leave."""


class SlashCommands:
    """Carries out slash commands for one conversation, whose options they change.

    Attributes:
        last_answer: what `/status` tells of.
    """

    def __init__(
        self, client: Client, view: View, options: AskOptions, transcript: Transcript, lookout: Lookout
    ) -> None:
        self._client = client
        self._view = view
        self._options = options
        self._transcript = transcript
        self._lookout = lookout
        #: The worker forgets it with the conversation: then it is sent again.
        self._system_prompt = options.get("system_prompt")
        self.last_answer: Answer | None = None

    def run(self, line: str) -> str | None:
        """Carry one out; returns the message that is to be sent because of it.

        Raises:
            Quit: it was /quit.
            InferbusError: the worker refused what it asks for.
        """
        name, _, rest = line[1:].strip().partition(" ")
        if name == "retry":
            question = self._transcript.last_question
            self._view.note("There is nothing to send again." if question is None else f"Again: {question}")
            return question
        command = getattr(self, f"_{name}", None) if name in NAMES else None
        if command is None:
            self._view.note(f"There is no /{name}; /help lists the commands.")
        else:
            command(rest.strip())
        return None

    def _help(self, _rest: str) -> None:
        width = max(map(len, NAMES)) + 1
        self._view.note("\n".join(f"/{name.ljust(width)} {text}" for name, text in HELP.items()))
        self._view.note("Alt-Enter begins a new line. Ctrl-C stops an answer; a second one leaves.")

    def _clear(self, _rest: str) -> None:
        self._view.clear()

    def _reset(self, _rest: str) -> None:
        self._client.reset()
        self._options["system_prompt"] = self._system_prompt
        self._view.note("The conversation is forgotten.")

    def _save(self, name: str) -> None:
        if not name or not self._transcript:
            self._view.note("Nothing has been said yet." if name else "Usage: /save FILE")
            return
        try:
            file = Path(name).expanduser()
            self._transcript.save(file, f"{self._client.settings.project}, session {self._client.session}")
        except FileExistsError:
            self._view.note(f"{name} is there already; take another name.")
        except (OSError, RuntimeError, ValueError) as error:  # no such home; a NUL in the name
            self._view.note(f"{name} cannot be written: {getattr(error, 'strerror', None) or error}.")
        else:
            self._view.note(f"What was said is in {file}.")

    def _system(self, text: str) -> None:
        if not text:
            self._view.note("Usage: /system TEXT")
            return
        self._options["system_prompt"] = self._system_prompt = text
        self._view.note("The system prompt is replaced with the next message.")

    def _model(self, name: str) -> None:
        if name and not self._change({"model": None if name == "-" else name}):
            return
        model = self._options.get("model")
        lines = ["Model: as the project says" if model is None else f"Model: {model}, from the next message on"]
        self._lookout.look()
        if models := self._lookout.models():
            lines.append(f"There are: {', '.join(models)}")
        self._view.note("\n".join(lines))

    def _session(self, name: str) -> None:
        if name == "new":
            self._client.new_session()
            self._options["system_prompt"] = self._system_prompt
        elif name and not is_session(name):
            self._view.note("A session's name consists of letters, digits and _ . : - (at most 128).")
            return
        elif name:
            self._client.session = name
        self._view.note(f"Session: {self._client.session}")

    def _status(self, _rest: str) -> None:
        settings, client = self._client.settings, self._client
        self._lookout.look()
        version = "MQTT 5" if client.is_v5 else "MQTT 3.1.1"
        lines = [
            f"{settings.broker}: {f'connected, {version}' if client.is_connected else 'no connection, trying again'}",
            f"project {settings.project}, session {client.session}",
            *(self._lookout.lines() or [self._lookout.words() or "Who serves here, the broker does not tell us."]),
        ]
        if self.last_answer is not None:
            lines.append(_figures(self.last_answer))
        self._view.note("\n".join(lines))

    def _settings(self, text: str) -> None:
        # NAME=VALUE too, as --param takes it.
        name, *rest = _BETWEEN.split(text, maxsplit=1)
        name, value = name.replace("-", "_"), "".join(rest).strip()
        if name in _SAMPLING:
            self._change_sampling(name, value)
        elif name in Params.model_fields:
            self._change_parameter(name, value)
        elif name:
            self._view.note(f"There is no setting {name}. There are: {', '.join((*_SAMPLING, *Params.model_fields))}")
            return
        shown: dict[str, object] = {name: self._options.get(name) for name in _SAMPLING}
        shown |= self._options.get("params") or {}
        said = {name: "as the project says" if value is None else value for name, value in shown.items()}
        self._view.note("\n".join(f"{name}: {value}" for name, value in said.items()))

    def _change_sampling(self, name: str, value: str) -> None:
        try:
            changed = _SAMPLING[name](value) if value else None
        except ValueError:
            self._view.note(f"{name} takes a number.")
            return
        self._change({name: changed})  # type: ignore[misc]

    def _change_parameter(self, name: str, value: str) -> None:
        parameters = dict(self._options.get("params") or {})
        parameters.pop(name, None)
        if value:
            parameters[name] = _parsed(value)
        self._change({"params": parameters or None})

    def _change(self, changed: AskOptions) -> bool:
        """Take it over, unless the worker would refuse every message for it; returns whether that is done."""
        reason = refusal({**self._options, **changed})
        if reason is None:
            self._options.update(changed)
        else:
            self._view.note(f"Not changed. {reason}")
        return reason is None

    def _quit(self, _rest: str) -> None:
        raise Quit


def _figures(answer: Answer) -> str:
    tokens = "" if answer.usage is None else f"{answer.usage.completion_tokens} tokens in "
    model = "" if answer.model is None else f"by {shown_in_line(answer.model)}, "
    return f"last answer: {model}{tokens}{answer.total_s:.1f} s, the first after {answer.first_token_s:.1f} s"


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
