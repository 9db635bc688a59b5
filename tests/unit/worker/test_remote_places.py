"""Where a remote engine's server is, and its key: neither the environment nor the log has a part in it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from inferbus_client.errors import SettingsError
from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.remote.backends import BACKENDS as ROWS
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace, remote_place
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.engines.remote.row import figure
from inferbus_worker.settings.models import BACKENDS, Backend, SlotSettings
from support.needs import needs_module
from support.stub_backend import StubBackend

_HELLO = ChatCall([{"role": "user", "content": "hello"}], Sampling(0, 1, 8))
_KEY = "sk-our-own-key"


def place_of(**slot: object) -> RemotePlace:
    return remote_place(SlotSettings.model_validate({"backend": "vllm"} | slot), model="qwen", name="qwen.0")


def test_the_table_has_a_row_for_each_backend_and_knows_the_fields_natural_numbers() -> None:
    assert set(ROWS) == set(BACKENDS)
    numbers = {name: row.concurrency for name, row in ROWS.items()}
    assert numbers == dict.fromkeys(BACKENDS, 1) | {"vllm": 256, "ollama": 4}


def test_whoever_can_be_started_here_takes_a_port_and_a_concurrency() -> None:
    for name, row in ROWS.items():
        if name in {"openai", "anthropic"}:
            assert row.managed is None
            continue
        assert row.managed is not None
        said = " ".join([row.managed.command, *row.managed.environment.values()])
        assert "{port}" in said
        assert "{concurrency}" in said


@pytest.mark.parametrize("value", [True, None, "7", -1, float("nan"), float("inf"), 1e300, [], {}])
def test_a_figure_that_is_none_is_not_taken(value: object) -> None:
    assert figure(value) is None


def test_a_place_has_the_usual_address_and_our_name_of_the_model_where_nothing_is_said() -> None:
    place = place_of()
    assert (place.address, place.model, place.key) == ("http://127.0.0.1:8000", "qwen", None)
    assert place_of(backend="llama.cpp").model is None
    assert place_of(backend="mlx", model="own").model == "own"


@pytest.mark.parametrize("url", ["http://gpu:1", "http://gpu:1/", "http://gpu:1/v1", "http://u:p@gpu:1/v1/?x=1"])
def test_an_address_is_taken_with_and_without_its_base(url: str) -> None:
    assert place_of(url=url).address == "http://gpu:1"


@pytest.mark.parametrize("url", ["gpu:8000", "ftp://gpu", "http://", "http://gpu:99999", "http://[x", "", "http://g:0"])
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match=r"qwen\.0: url must be an address"):
        remote_place(SlotSettings.model_construct(backend="vllm", url=url or "x", options={}), model="m", name="qwen.0")


def test_a_place_has_as_many_connections_as_its_slot_has_requests() -> None:
    assert place_of().connections == 256
    assert place_of(concurrency=8).connections == 50
    assert place_of(backend="ollama").connections == 50


def test_options_have_types_again_that_the_file_has_read_as_text() -> None:
    options = place_of(backend="ollama", options={"num_ctx": "8192", "keep_alive": "10m", "use_mmap": "true"}).options
    assert options == {"num_ctx": 8192, "keep_alive": "10m", "use_mmap": True}


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {_KEY}\n")
    (tmp_path / "key").write_text(f"{_KEY}\n")
    for said in ({"api_key_env": "SOME_KEY"}, {"api_key_file": str(tmp_path / "key")}):
        place = place_of(**said)
        assert place.key is not None
        assert place.key.get_secret_value() == _KEY
        assert _KEY not in repr(place)


def test_a_key_that_is_not_there_is_said_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    monkeypatch.setenv("BAD_KEY", "two\nlines")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * 100_000)
    cases = {
        "names NO_KEY, which is not set": {"api_key_env": "NO_KEY"},
        "names a variable, which is not set": {"api_key_env": "hf_0123"},  # it may be the key itself
        "BAD_KEY holds no key": {"api_key_env": "BAD_KEY"},
        "cannot be read: No such file": {"api_key_file": str(tmp_path / "missing")},
        "cannot be read: Is a directory": {"api_key_file": str(tmp_path)},
        "is empty": {"api_key_file": str(tmp_path / "empty")},
        "large holds no key": {"api_key_file": str(tmp_path / "large")},
    }
    for words, said in cases.items():
        with pytest.raises(SettingsError, match=words):
            place_of(**said)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_environment_has_no_part_in_what_is_sent(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_module("openai")
    others = {
        **dict.fromkeys(("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"), "foreign"),
        **dict.fromkeys(("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"), "foreign"),
        **dict.fromkeys(("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"), "Authorization: foreign\nX-Y: foreign"),
        **dict.fromkeys(
            ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
        ),
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    for key in (None, _KEY):
        place_key = None if key is None else SecretStr(key)
        headers = sent_headers(backend, place_key)
        assert "foreign" not in str(headers)
        assert headers.get("authorization") == (None if key is None else f"Bearer {key}")
        assert not [name for name in headers if name.startswith(("x-", "openai"))]


def sent_headers(backend: Backend, key: SecretStr | None, user: str = "") -> dict[str, str]:
    loop = RemoteLoop()
    loop.start()
    with StubBackend(backend) as stub:
        engine = RemoteEngine(RemotePlace(backend, stub.url.replace("//", f"//{user}"), None, key), loop)
        engine.start()
        engine.generate(_HELLO).wait(time.monotonic() + 20)
        engine.stop(10)
        loop.stop(10)
        assert {str(sorted(probe.headers)) for probe in stub.probes}
        return stub.requests[0].headers


def test_a_name_and_password_in_the_address_are_sent_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    needs_module("openai")
    caplog.set_level(logging.DEBUG)
    headers = sent_headers("vllm", None, "someone:hidden%20one@")
    assert headers["authorization"] == "Basic c29tZW9uZTpoaWRkZW4gb25l"
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_and_prompts_are_not_in_the_log_at_any_level(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    needs_module("openai")
    caplog.set_level(logging.DEBUG)
    sent_headers(backend, SecretStr(_KEY))
    assert _KEY not in caplog.text
    assert "hello" not in caplog.text


def test_the_loop_is_one_thread_with_a_name_that_stops_twice() -> None:
    loop = RemoteLoop()
    loop.stop(1)
    loop.start()
    loop.start()
    named = [thread for thread in threading.enumerate() if thread.name == "remote-engines"]
    assert len(named) == 1
    loop.stop(5)
    loop.stop(5)
    assert not named[0].is_alive()
    engine = RemoteEngine(RemotePlace("vllm", "http://127.0.0.1:9"), loop)
    engine.stop(1)
    assert engine.count_tokens("some text") > 0


def test_the_process_has_no_connection_left_after_the_stop() -> None:
    needs_module("openai")
    before = psutil.Process().num_fds()
    sent_headers("vllm", None)
    assert psutil.Process().num_fds() <= before + 1
