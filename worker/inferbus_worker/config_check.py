"""`inferbus serve --check-config`: the settings in force, as a configuration file says them, and what is odd there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import yaml

from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.settings.sources import unknown_variables
from inferbus_client.shown import shown, shown_in_line
from inferbus_worker.settings.masking import masked_words
from inferbus_worker.settings.pairs import missing_files, without_effect
from inferbus_worker.settings.worker import Settings


def describe(settings: Settings, places: Mapping[str, str], options: Sequence[str], model: str | None = None) -> str:
    """The settings as YAML; secrets are stars.

    Args:
        settings: those in force.
        places: where those stand that are no defaults, by name.
        options: what is passed on to vLLM.
        model: what is to be served, where that was said.
    """
    lines = [] if model is None else [f"# MODEL: {shlex.quote(shown_in_line(model))}"]
    lines += [f"# for vLLM: {shown_in_line(shlex.join(masked_words(options)))}"] if options else []
    for name, value in settings.masked().items():
        text = yaml.safe_dump({name: value}, allow_unicode=True, sort_keys=False)
        if shown(text) != text:  # what a terminal would obey stands in YAML's own escapes
            text = yaml.safe_dump({name: value}, sort_keys=False)
        first, *more = text.splitlines()
        lines += [f"{first}  # {places[name]}" if name in places else first, *more]
    return "\n".join(lines)


def remarks(settings: Settings) -> list[str]:
    """A sentence for each thing that was said and that nobody heeds."""
    # The client's variables may stand in the same environment: no worker reads them, and nothing is wrong with them.
    return [*unknown_variables((Settings, GatewaySettings)), *without_effect(settings), *missing_files(settings)]
