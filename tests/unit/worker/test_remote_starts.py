"""What the start of a remote engine says where it comes to nothing."""

from __future__ import annotations

import logging
import socket
import threading
from queue import SimpleQueue

import pytest
from pydantic import SecretStr

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from support.mosquitto import HOST
from support.stub_backend import StubBackend


def failure(place: RemotePlace, loop: RemoteLoop) -> str:
    """Why a start comes to nothing."""
    engine = RemoteEngine(place, loop)
    with pytest.raises(EngineStartError) as caught:
        engine.start()
    engine.stop(5)
    return str(caught.value)


def test_a_stop_in_the_middle_of_a_start_is_all_that_is_said_of_it(caplog: pytest.LogCaptureFixture) -> None:
    ends: SimpleQueue[Exception | None] = SimpleQueue()
    loop = RemoteLoop()
    loop.start()
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(30)
        engine = RemoteEngine(RemotePlace("llama.cpp", f"http://{HOST}:{server.getsockname()[1]}"), loop)

        def start() -> None:
            try:
                engine.start()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
                ends.put(error)
            else:
                ends.put(None)

        starting = threading.Thread(target=start)
        starting.start()
        connection, _ = server.accept()
        with caplog.at_level(logging.WARNING), connection:
            connection.recv(1)  # the question has come, and will have no answer
            engine.stop(5)
            loop.stop(5)
            error = ends.get(timeout=30)
        starting.join(30)
    assert isinstance(error, EngineStartError)
    assert "stopped while it was asked" in str(error)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, " wants a key (401): set api_key_env or api_key_file."),
        ("other", " refuses our key (401): mend what api_key_env or api_key_file names."),
    ],
)
def test_a_key_that_is_missing_is_no_key_that_is_wrong(loop: RemoteLoop, key: str | None, said: str) -> None:
    with StubBackend("openai", key="right") as stub:
        place = RemotePlace("openai", stub.url, key=None if key is None else SecretStr(key))
        assert failure(place, loop).endswith(said)


def test_a_name_that_leads_nowhere_is_told_from_a_server_that_is_not_up(loop: RemoteLoop) -> None:
    said = failure(RemotePlace("ollama", "http://no-such-host.invalid:11434"), loop)
    assert (
        said == "No address is known here for the name in http://no-such-host.invalid:11434: mend url, or the network."
    )


def test_nobody_is_told_to_start_a_service_of_somebody_else(loop: RemoteLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2  # noqa: PLC0415

    async def refused(*_: object, **__: object) -> None:
        raise httpx2.ConnectError("All connection attempts failed")

    monkeypatch.setattr("inferbus_worker.engines.remote.connections.Connections.ask", refused)
    said = failure(RemotePlace("openai", "https://api.openai.com"), loop)
    assert said == "Nobody answers at https://api.openai.com: mend url, or this machine's way there (network, proxy)."
    assert "start Ollama, or mend url" in failure(RemotePlace("ollama", "http://gpu2:11434"), loop)
