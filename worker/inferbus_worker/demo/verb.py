"""The body of `inferbus demo`: a broker, a worker and a chat in one command, and nothing left when it ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

from inferbus_client import Client
from inferbus_client.cli.terminal import say
from inferbus_client.exits import Exit
from inferbus_client.settings.connection import ConnectionSettings
from inferbus_worker.demo.progress import Progress
from inferbus_worker.demo.worker import DemoWorker

_PROJECT: Final = "general"
_TICK: Final = 0.2


def run(*, once: Sequence[str] = (), broker: str | None = None, engine: str = "vllm", model: str = "demo") -> int:
    """Start everything, chat, stop everything.

    Args:
        once: messages to send in one session instead of opening a chat; the replies go to standard output.
        broker: the URL of a running broker, instead of the embedded one.
        engine: `vllm` or `simulated`.
        model: what the worker serves.

    Returns:
        The exit status.

    Raises:
        InferbusError: something did not work; the text is for the user.
    """
    progress = Progress()
    with _endings_as_exceptions(), ExitStack() as running:
        connection = ConnectionSettings.load({"broker": broker}) if broker else _start_broker(running, progress)
        _start_worker(running, progress, connection, engine, model)
        return _ask(connection, once) if once else _chat(progress, connection)


def _start_broker(running: ExitStack, progress: Progress) -> ConnectionSettings:
    # Imported here: with a broker of the user's own, amqtt need not be there.
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415

    with progress.step("Starting an embedded MQTT broker"):
        url = running.enter_context(EmbeddedBroker()).url
    # It answers an MQTT 5 connection that has a Last Will with silence, so nobody should try.
    return ConnectionSettings.load({"broker": url, "mqtt_version": "3.1.1"})


def _start_worker(
    running: ExitStack, progress: Progress, connection: ConnectionSettings, engine: str, model: str
) -> None:
    with progress.step("Starting the worker") as step:
        worker = running.enter_context(DemoWorker(connection, engine=engine, model=model, project=_PROJECT))
        loading = _loading(engine, model)
        while (state := worker.wait(_TICK)) != "ready":
            if state == "loading":
                step.change(loading)
            step.tick()


def _loading(engine: str, model: str) -> str:
    if engine != "vllm":
        return "Starting the simulated engine"
    return "Loading vLLM and the demo model (20-40 s on a CPU)" if model == "demo" else f"Loading vLLM and {model}"


def _ask(connection: ConnectionSettings, messages: Sequence[str]) -> int:
    with Client(connection.broker, mqtt_version=connection.mqtt_version, project=_PROJECT) as client:
        for message in messages:
            say(f"{client.ask(message).text}\n")
    return Exit.OK


def _chat(progress: Progress, connection: ConnectionSettings) -> int:
    from inferbus_client.cli.chat import chat  # noqa: PLC0415 - prompt_toolkit is not needed for --once

    progress.say(f"Other MQTT clients are welcome too: publish to {_PROJECT}/user_input at {connection.broker}.")
    options = ["--broker", connection.broker, "--mqtt-version", connection.mqtt_version, "--project", _PROJECT]
    status = chat.main(options, prog_name="inferbus chat", standalone_mode=False)
    return status if isinstance(status, int) else Exit.OK


@contextmanager
def _endings_as_exceptions() -> Iterator[None]:
    """Make a terminal that closes, and a polite kill, unwind the stack as Ctrl-C does."""
    endings = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _end) for number in endings]
    try:
        yield
    finally:
        for number, handler in zip(endings, before, strict=True):
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
