"""`inferbus gateway`: OpenAI-shaped HTTP and a page in front of the bus."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import click

from inferbus_client.cli.connection import client_options
from inferbus_client.cli.options import given
from inferbus_client.cli.streams import complain
from inferbus_client.exits import Exit
from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.shown import shown_in_line

#: What says something of one conversation, and nothing to a program that has many.
_OF_ONE: Final = frozenset({"session", "retries", "pacing", "qos"})
_NAMED: Final = 10


@click.command(short_help="Serve an OpenAI-shaped HTTP API, and a page, in front of the bus.")
@client_options(model=GatewaySettings, skip=_OF_ONE)
def gateway(config: Path | None, **flags: Any) -> int:
    """Answer HTTP requests by asking the workers on the bus, which are found by themselves.

    POST /v1/chat/completions and /v1/messages are as at OpenAI and Anthropic; a model is called PROJECT, or
    PROJECT/MODEL. GET /v1/models lists them. The page at / chats, and shows the workers live.
    """
    from inferbus_client.gateway.run import run  # noqa: PLC0415

    settings = GatewaySettings.load(given(GatewaySettings, flags), config)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("inferbus").setLevel(logging.INFO)

    def started(port: int, models: list[str]) -> None:
        host = settings.listen.rpartition(":")[0]
        serves = f"it has {', '.join(map(shown_in_line, models[:_NAMED]))}" if models else "no worker is ready yet"
        complain(f"inferbus gateway at http://{host}:{port}; {serves}")

    run(settings, started)
    return Exit.OK
