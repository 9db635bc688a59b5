"""The body of `inferbus demo`: a broker, a worker and a chat in one command, and nothing left when it ends."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, Literal, NamedTuple

from inferbus_client import Client
from inferbus_client.cli.terminal import say
from inferbus_client.contract.presence import Presence
from inferbus_client.exits import Exit
from inferbus_client.settings.connection import ConnectionSettings
from inferbus_worker.demo.child import DemoError
from inferbus_worker.demo.gateway import DemoGateway
from inferbus_worker.demo.progress import Progress
from inferbus_worker.demo.shared import DemoBroker, DemoStore, check_installed
from inferbus_worker.demo.worker import DemoWorker
from inferbus_worker.engines.managed.commands import missing
from inferbus_worker.engines.remote.backends import BACKENDS

_PROJECT: Final = "general"
_TICK: Final = 0.2
#: Requests at once on the second backend, so that its batching shows.
_AT_ONCE: Final = 4


class _What(NamedTuple):
    """What the worker is to serve.

    Attributes:
        serve: what `inferbus serve` is told of it.
        loading: the step in which it is loaded.
        config: a configuration file, if it is told by one.
        models: those that have to answer, where there are several.
    """

    serve: Sequence[str]
    loading: str
    config: Mapping[str, Any] | None = None
    models: Sequence[str] = ()


def run(
    *,
    once: Sequence[str] = (),
    broker: str | None = None,
    engine: str = "vllm",
    model: str = "demo",
    backend: Literal["mlx"] | None = None,
    workers: int = 1,
) -> int:
    """Start everything, chat, stop everything.

    Args:
        once: messages to send in one session instead of opening a chat; the replies go to standard output.
        broker: the URL of a running broker, instead of the embedded one.
        engine: `vllm` or `simulated`.
        model: what the worker serves.
        backend: what serves it once more, as a server that the worker starts; every message of `once` goes to both.
        workers: how many of them; several are one group, on a Redis and a Mosquitto of the demo's own.

    Returns:
        The exit status.

    Raises:
        InferbusError: something did not work; the text is for the user.
    """
    progress = Progress()
    loading = _loading(engine, model, workers)
    what = _one(engine, model, loading) if backend is None else _two(engine, model, backend, loading)
    is_group = workers > 1
    if is_group:
        check_installed(broker=broker is None)
    with _endings_as_exceptions(), ExitStack() as running:
        if broker is not None:
            connection = ConnectionSettings.load({"broker": broker})
        else:
            connection = (_start_mosquitto if is_group else _start_broker)(running, progress)
        if is_group:
            what = _shared(running, progress, what)
        group = _start_workers(running, progress, connection, what, workers)
        if once:
            return _ask(connection, once, what.models)
        _start_gateway(running, progress, connection)
        if is_group:
            processes = ", ".join(f"{worker.id} (process {worker.pid})" for worker in group)
            progress.say(f"The workers share this conversation: {processes}. End one, and the other goes on with it.")
        return _chat(progress, connection, what.models)


def _start_mosquitto(running: ExitStack, progress: Progress) -> ConnectionSettings:
    with progress.step("Starting a Mosquitto, which knows shared subscriptions"):
        return ConnectionSettings.load({"broker": running.enter_context(DemoBroker()).url})


def _shared(running: ExitStack, progress: Progress, what: _What) -> _What:
    """The same for each worker of a group, with the store that they share."""
    with progress.step("Starting a Redis, which the workers share"):
        store = running.enter_context(DemoStore())
    return what._replace(serve=[*store.serve, "--group", f"demo-{uuid.uuid4().hex[:8]}", *what.serve])


def _start_broker(running: ExitStack, progress: Progress) -> ConnectionSettings:
    # Imported here: with a broker of the user's own, amqtt need not be there.
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415

    with progress.step("Starting an embedded MQTT broker"):
        url = running.enter_context(EmbeddedBroker()).url
    # It answers an MQTT 5 connection that has a Last Will with silence, so nobody should try.
    return ConnectionSettings.load({"broker": url, "mqtt_version": "3.1.1"})


def _one(engine: str, model: str, loading: str) -> _What:
    return _What(["--engine", engine, "--project", _PROJECT, model], loading)


def _two(engine: str, model: str, backend: Literal["mlx"], loading: str) -> _What:
    """The model in the worker's process, and on a server that the worker starts.

    Raises:
        DemoError: the server is not installed.
    """
    second = f"demo-{backend}"
    row = BACKENDS[backend]
    if row.managed is None or missing(row.managed) is not None:
        remedy = "" if row.managed is None else f": {row.managed.remedy}"
        raise DemoError(f"{row.label} is not here{remedy}. In a checkout, scripts/demo --backend {backend} does so.")
    models = ["demo", second]
    inner = {"engine": engine} | ({"path": model} if engine == "vllm" else {})
    server = {"backend": backend, "path": model, "concurrency": _AT_ONCE}
    config = {
        "models": {"demo": inner, second: server},
        "projects": {_PROJECT: {"model": "demo", "models": models}},
    }
    return _What([], f"{loading}, and a server of {row.label}'s", config, models)


def _start_workers(
    running: ExitStack, progress: Progress, connection: ConnectionSettings, what: _What, count: int
) -> list[DemoWorker]:
    """Side by side: each of them loads for as long as one alone would."""
    with progress.step("Starting the worker" if count == 1 else f"Starting {count} workers") as step:
        group = [running.enter_context(DemoWorker(connection, what.serve, what.config)) for _ in range(count)]
        for worker in group:
            while not _is_ready(said := worker.wait(_TICK), what.models):
                if said is not None and said.state == "loading":
                    step.change(what.loading)
                if said is not None and said.state == "ready" and "unavailable" in said.models.values():
                    raise DemoError(f"one of the models does not come up. {worker.end_of_log()}")
                step.tick()
    return group


def _start_gateway(running: ExitStack, progress: Progress, connection: ConnectionSettings) -> None:
    """Where it is installed."""
    if DemoGateway.is_installed():
        with progress.step("Starting the gateway"):
            url = running.enter_context(DemoGateway(connection)).url
        progress.say(f"A page is at {url}, OpenAI's API at {url}/v1 (model: {_PROJECT}).")


def _is_ready(said: Presence | None, models: Sequence[str]) -> bool:
    """Whether all models answer; the worker is ready when one of them does."""
    return said is not None and said.state == "ready" and all(said.models.get(name) == "ready" for name in models)


def _loading(engine: str, model: str, workers: int) -> str:
    if engine != "vllm":
        return "Starting the simulated engine"
    if model != "demo":
        return f"Loading vLLM and {model}"
    # Side by side, and yet not as fast: each of them keeps a core or two busy.
    took = "20-40 s on a CPU that does nothing else" if workers == 1 else "for each worker; a few minutes on two cores"
    return f"Loading vLLM and the demo model ({took})"


def _ask(connection: ConnectionSettings, messages: Sequence[str], models: Sequence[str]) -> int:
    sessions = {model: f"{model}-{uuid.uuid4().hex}" for model in models}
    with Client(connection.broker, mqtt_version=connection.mqtt_version, project=_PROJECT) as client:
        for message in messages:
            if not models:
                say(f"{client.ask(message).text}\n")
            for model, session in sessions.items():
                answer = client.ask(message, model=model, session=session)
                say(f"{answer.model}: {answer.text}\n")
    return Exit.OK


def _chat(progress: Progress, connection: ConnectionSettings, models: Sequence[str]) -> int:
    from inferbus_client.cli.chat import chat  # noqa: PLC0415 - prompt_toolkit is not needed for --once

    progress.say(f"Other MQTT clients are welcome too: publish to {_PROJECT}/user_input at {connection.broker}.")
    if models:
        progress.say(f"{models[0]} answers; /model {models[1]} lets the other one answer, as --model does elsewhere.")
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
