"""`deploy/mosquitto/README.md`, executed: what one block makes is what the next one needs."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pexpect
import pytest

from support.inferbus import environment
from support.mosquitto import Mosquitto, free_port
from support.needs import needs_module, needs_program
from support.readme import all_blocks
from support.scripts import ROOT, Running
from support.shipped_mosquitto import SHIPPED

README: Final = SHIPPED / "README.md"
ADMIN_PASSWORD: Final = "an admin's password"  # noqa: S105 - nobody's
#: What `_type` may come upon.
PROMPT, END = 0, 1
#: What a test may not do on this machine: give files to another user, and restart the system's broker.
PRELUDE: Final = """
set -euo pipefail
chown() { :; }
systemctl() { touch "$WANTED"; until (: </dev/tcp/127.0.0.1/$USERS_PORT) 2>/dev/null; do sleep 0.05; done; }
"""


class DocumentedMosquitto(Mosquitto):
    """The broker that the README's first block sets up, in folders below `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.workers_port = free_port()

    @property
    def logins(self) -> Path:
        """Where the README has `provision` put what goes to the logins' owners."""
        return self.root / "home" / "logins"

    @property
    def env(self) -> dict[str, str]:
        return {
            **environment(INFERBUS_ENGINE="simulated"),
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}:/usr/sbin:/usr/local/sbin",
            "HOME": str(self.root / "home"),
            "CAFILE": str(self.root / "etc/inferbus/ca.crt"),
            "USERS_PORT": str(self.port),
            "WANTED": str(self.root / "wanted"),
        }

    def translated(self, text: str) -> str:
        """A text of the README, with the test's own folders, host and ports."""
        places = {
            "/etc/mosquitto": f"{self.root}/etc",
            "/var/lib/mosquitto": f"{self.root}/var",
            "broker.example.org": "localhost",
            "8883": str(self.port),
            "8884": str(self.workers_port),
        }
        for theirs, ours in places.items():
            text = text.replace(theirs, ours)
        return text

    def _lines(self) -> list[str]:
        text = self.translated((self.root / "etc" / "mosquitto.conf").read_text())
        return [text, *(["user root"] if os.geteuid() == 0 else [])]


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """By their marks."""
    return {block.mark: block.text for block in all_blocks(README)}


@pytest.fixture(scope="module")
def shipped(blocks: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentedMosquitto]:
    for program in ("mosquitto_ctrl", "mosquitto_rr", "openssl"):
        needs_program(program)
    root = tmp_path_factory.mktemp("root")
    for folder in ("etc", "var", "home"):
        (root / folder).mkdir()
    with ExitStack() as running:
        broker = DocumentedMosquitto(root)
        _type(broker, blocks["broker"], start=lambda: running.enter_context(broker))
        yield broker


def _type(broker: DocumentedMosquitto, block: str, start: Callable[[], object]) -> None:
    """Type a block at a terminal, and the admin's password wherever it is asked for; `start` the broker when asked."""
    command = ["-c", PRELUDE + broker.translated(block)]
    child = pexpect.spawn("bash", command, cwd=str(SHIPPED), env=broker.env, encoding="utf-8", echo=False)
    said, started = "", False
    with closing(child):
        while (found := child.expect([r"assword.*?: ", pexpect.EOF, pexpect.TIMEOUT], timeout=0.2)) != END:
            if found == PROMPT:
                child.sendline(ADMIN_PASSWORD)
                said += child.before + child.after
            elif not started and Path(broker.env["WANTED"]).exists():
                start()
                started = True
        said += child.before
    assert child.exitstatus == 0, said


def test_every_block_is_tried(blocks: Mapping[str, str]) -> None:
    assert set(blocks) == {"broker", "worker", "user", "gateway"}


def test_a_worker_and_a_user_need_nothing_but_their_files(
    shipped: DocumentedMosquitto, blocks: Mapping[str, str]
) -> None:
    with Running(["bash", "-euc", _there(shipped, blocks["worker"])], shipped.env) as worker:
        worker.says("ready: serving")
        asked = subprocess.run(
            ["bash", "-euc", _there(shipped, blocks["user"])],
            env=shipped.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (asked.stdout, asked.stderr) == ("hello\n", "")
        worker.press_ctrl_c()
        assert worker.wait(60) == 0, worker.err


def test_nor_does_a_gateway(shipped: DocumentedMosquitto, blocks: Mapping[str, str]) -> None:
    needs_module("uvicorn")
    _type(shipped, f"export BROKER=localhost:{shipped.port} LOGINS=~/gateway; ./provision gateway", start=lambda: None)
    start = f"cd {shipped.root}/home/gateway\n{shipped.translated(blocks['gateway'])}"
    env = {**shipped.env, "INFERBUS_LISTEN": "127.0.0.1:0"}
    with (
        Running(["bash", "-euc", _there(shipped, blocks["worker"])], shipped.env) as worker,
        Running(["bash", "-euc", start], env) as gateway,
    ):
        worker.says("ready: serving")
        gateway.says("inferbus gateway at")


def _there(shipped: DocumentedMosquitto, block: str) -> str:
    return f"cd {shipped.logins}\n{shipped.translated(block)}"


def test_each_login_has_a_file_that_its_owner_alone_may_read(shipped: DocumentedMosquitto) -> None:
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in shipped.logins.iterdir()}
    assert files == {
        "inferbus-worker.password": 0o600,
        "alice.password": 0o600,
        "alice-phone.password": 0o600,
        "ca.crt": 0o644,
    }
    secrets = {file.read_text() for file in shipped.logins.glob("*.password")}
    assert len(secrets) == 3


def _provision(shipped: DocumentedMosquitto, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHIPPED / "provision", *arguments],
        env={**shipped.env, "BROKER": f"localhost:{shipped.port}", "ADMIN_PASSWORD": ADMIN_PASSWORD, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_provision_says_which_login_a_secret_belongs_to(shipped: DocumentedMosquitto, tmp_path: Path) -> None:
    printed = _provision(shipped, "user", "bob", "car")
    assert printed.returncode == 0, printed.stderr
    assert "bob-car" in printed.stderr
    assert re.fullmatch(r"[0-9a-f]{48}\n", printed.stdout)  # for a pipe, the secret alone
    written = _provision(shipped, "user", "bob", LOGINS=str(tmp_path / "new" / "folder"))
    assert written.returncode == 0, written.stderr
    assert f"login bob: {tmp_path / 'new' / 'folder' / 'bob.password'}" in written.stderr
    assert written.stdout == ""
    assert re.fullmatch(r"[0-9a-f]{48}\n", (tmp_path / "new" / "folder" / "bob.password").read_text())


def test_a_folder_that_cannot_be_written_is_said_before_a_login_is_made(
    shipped: DocumentedMosquitto, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    refused = _provision(shipped, "user", "carol", LOGINS=str(tmp_path / "file"))
    assert refused.returncode == 1
    assert "cannot write" in refused.stderr
    assert _provision(shipped, "user", "carol").returncode == 0


def test_a_refused_login_leaves_no_file(shipped: DocumentedMosquitto, tmp_path: Path) -> None:
    refused = _provision(shipped, "user", "alice", LOGINS=str(tmp_path))
    assert refused.returncode == 1
    assert "already exists" in refused.stderr
    assert not (tmp_path / "alice.password").exists()
