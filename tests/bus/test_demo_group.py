"""What the workers of `inferbus demo --workers 2` share, on a real redis-server and a real Mosquitto."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis

from inferbus_worker.demo import shared
from inferbus_worker.demo.child import DemoError
from inferbus_worker.demo.shared import DemoBroker, DemoStore, check_installed
from inferbus_worker.demo.verb import _loading
from inferbus_worker.settings.worker import Settings
from support.mosquitto import HOST
from support.needs import needs_program
from support.processes import assert_gone, descendants, family
from support.scripts import ROOT, Running
from support.waiting import until

INFERBUS: Final = str(ROOT / ".venv/bin/inferbus")


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = descendants()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    assert_gone([process for process in descendants() if process not in before])
    assert not list(tmp_path.glob("inferbus-demo-*"))


def test_its_redis_asks_for_the_password_that_its_workers_are_given() -> None:
    needs_program("redis-server")
    with DemoStore() as store:
        _, url, _, file = store.serve
        settings = Settings.load({"state": url, "state_file": file})
        assert settings.is_shared
        with redis.Redis(host=HOST, port=store.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(host=HOST, port=store.port, password=Path(file).read_text()) as worker:
            assert worker.ping()
            assert worker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert Path(file).parent.stat().st_mode & 0o077 == 0


def test_its_mosquitto_takes_everybody_on_this_machine() -> None:
    needs_program("mosquitto")
    with DemoBroker() as broker, Running([INFERBUS, "status", "--once", "--broker", broker.url]) as status:
        status.wait(60)
        assert "no worker" in (status.out + status.err).lower()


def test_a_server_that_does_not_come_up_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_program("redis-server")
    monkeypatch.setattr(DemoStore, "_options", lambda _, folder: (str(folder / "not-there.conf"),))
    with pytest.raises(DemoError, match=r"redis-server does not answer: .*config file.*not-there"), DemoStore():
        pass


def test_killed_at_once_it_leaves_no_server_running(tmp_path: Path) -> None:
    needs_program("redis-server")
    code = "import threading\nfrom inferbus_worker.demo.shared import DemoStore\n"
    code += "with DemoStore() as store: print(store.port, flush=True); threading.Event().wait()"
    with Running([sys.executable, "-c", code], env={"TMPDIR": str(tmp_path / "killed")}) as demo:
        (tmp_path / "killed").mkdir(exist_ok=True)
        until(lambda: demo.out.strip().isdigit() or demo.process.poll() is not None)
        started = family(demo.process.pid)
        assert any(process.name() == "redis-server" for process in started)
        demo.process.send_signal(signal.SIGKILL)
        assert demo.wait(20) == -signal.SIGKILL
        assert_gone([process for process in started if process.pid != demo.process.pid], 20)


def test_what_is_not_installed_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_path", lambda _: None)
    with pytest.raises(
        DemoError, match=r"redis-server and mosquitto.*apt-get install redis-server mosquitto .*--broker"
    ):
        check_installed(broker=True)
    with pytest.raises(DemoError, match=r"need redis-server, not found here: .*brew install redis\)$"):
        check_installed(broker=False)


def test_how_long_several_engines_take_to_load_is_not_said_to_be_what_one_takes() -> None:
    alone, several = _loading("vllm", "demo", 1), _loading("vllm", "demo", 2)
    assert "(20-40 s on a CPU that does nothing else)" in alone
    assert "(for each worker; a few minutes on two cores)" in several


def test_where_there_is_no_redis_the_demo_says_so_before_it_starts_anything(tmp_path: Path) -> None:
    if os.path.exists("/usr/sbin/redis-server"):  # noqa: PTH110
        pytest.skip("redis-server is among the daemons here")
    command = [INFERBUS, "demo", "--engine", "simulated", "--workers", "2", "--once", "hello"]
    with Running(command, env={"PATH": str(tmp_path)}) as demo:
        assert demo.wait(60) == 1
        assert "redis-server" in demo.err
        assert "apt-get install" in demo.err
        assert "Starting" not in demo.err
        assert "Traceback" not in demo.err
