"""Standard streams that are closed, full, broken or not UTF-8, and files that are not what they should be."""

from __future__ import annotations

import itertools
import shlex
import subprocess
from pathlib import Path

import pytest

from support.fake_worker import FakeWorker, accepted, delta, done
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.terminal import in_terminal


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project)


def shell(command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run `command` in bash, where `inferbus` is ours and `$@` are the arguments."""
    return subprocess.run(
        ["bash", "-c", f'inferbus() {{ {shlex.quote(PROGRAM)} "$@"; }}\n{command}', "bash", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
        timeout=60,
        check=False,
    )


def in_a_sentence(run: subprocess.CompletedProcess[bytes], status: int, words: str) -> None:
    """It ended with this status and one line on standard error, which says this."""
    errors = run.stderr.decode()
    assert run.returncode == status, errors
    assert words in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert errors.splitlines()[-1].startswith(("inferbus: ", "Error: ")), errors


class TestClosed:
    @pytest.mark.parametrize("command", ["chat", "chat --plain", "ask -"])
    def test_input(self, way: tuple[str, ...], command: str) -> None:
        in_a_sentence(shell(f'inferbus {command} "$@" <&-', *way), 2, "standard input is closed")

    def test_input_that_nobody_reads(self, way: tuple[str, ...]) -> None:
        for command in ("ask hello", "chat -q hello"):
            run = shell(f'inferbus {command} "$@" <&-', *way)
            assert (run.returncode, run.stdout, run.stderr) == (0, b"You said: hello\n", b"")
        assert in_terminal("-c", f'{PROGRAM} chat -q hello "$@" <&-', "bash", *way, program="bash").status == 0

    def test_output(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        """Who closes it wants none. The connection to the broker must not take its place."""
        run = shell('inferbus ask "$@" hello >&- 2>&-', *way)
        assert run.returncode == 0
        assert len(fake_worker.heard) == 1


class TestFull:
    @pytest.mark.parametrize(
        "command", ["--help", "--version", "ask --help", "ask x", "ask --json x", "ask --stream x"]
    )
    def test_output(self, way: tuple[str, ...], command: str) -> None:
        arguments = way if command.endswith("x") else ()
        in_a_sentence(shell(f'inferbus {command} "$@" >/dev/full', *arguments), 1, "No space left on device")

    @pytest.mark.parametrize("command", ["chat -q x", "doctor", "doctor --json", "status --once", "stress --json"])
    def test_output_of_the_other_verbs(self, way: tuple[str, ...], command: str) -> None:
        few = ("--messages", "1", "--clients", "1") if command.startswith("stress") else ()
        run = shell(f'inferbus {command} "$@" >/dev/full', *way, *few)
        in_a_sentence(run, 1, "No space left on device")

    def test_errors(self, way: tuple[str, ...]) -> None:
        """Nobody can be told; the status says it all the same."""
        assert shell("inferbus ask --no-such-option x 2>/dev/full").returncode == 2
        assert shell("inferbus ask --broker mqtt://127.0.0.1:1 --connect-timeout 1ms x 2>/dev/full").returncode == 3
        assert shell('inferbus ask "$@" x 2>/dev/full', *way).stdout == b"You said: x\n"


@pytest.mark.parametrize("command", ["--help", "ask x", "ask --stream x", "chat -q x", "doctor --json"])
def test_a_reader_who_has_left(way: tuple[str, ...], fake_worker: FakeWorker, command: str) -> None:
    text = "so much " * 20_000  # more than a pipe holds
    fake_worker.script = lambda _: [accepted(), *(delta(text) for _ in range(2)), done(text * 2)]
    arguments = () if command == "--help" else way
    run = shell(f'(inferbus {command} "$@"; echo "status $?" >&2) | true', *arguments)
    assert run.stderr.decode() in {"status 0\n", "status 1\n"}


class TestNotUtf8:
    def test_input(self, way: tuple[str, ...]) -> None:
        for command, mode in itertools.product(("ask -", "chat"), ("0", "1")):
            in_a_sentence(
                shell(f"printf 'Gr\\374n' | inferbus {command} " + shlex.join(way), PYTHONUTF8=mode), 2, "not UTF-8"
            )

    def test_arguments(self, way: tuple[str, ...]) -> None:
        in_a_sentence(shell(r"inferbus ask $'Gr\374n' " + shlex.join(way)), 1, "surrogate")

    def test_a_password_file(self, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_bytes(b"\xff\xfe\x00")
        for verb in (("ask", "x"), ("doctor",), ("status", "--once"), ("serve", "--engine", "simulated")):
            run = shell('inferbus "$@" --username ann --password-file ' + str(file), *verb)
            in_a_sentence(run, 2, "the password file is not text")


DEEP = "stop=" + "[" * 100_000


@pytest.mark.parametrize(
    ("verb", "parameter", "words"),
    [
        (("ask", "x"), DEEP, "nests too deep"),
        (("chat", "-q", "x"), DEEP, "nests too deep"),
        (("stress",), DEEP, "nests too deep"),
        (("ask", "x"), "response_format=" + '{"a":' * 900 + "1" + "}" * 900, "nests too deep"),
        (("ask", "x"), "seed=NaN", "seed"),
        (("ask", "x"), "seed=" + "9" * 6000, "seed"),
        (("ask", "x"), "warmth=1", "warmth"),
        (("chat", "-q", "x"), "top_k=-5", "top_k"),
        (("stress",), "min_p=2", "min_p"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value[:12],
)
def test_a_parameter_that_cannot_be_meant(verb: tuple[str, ...], parameter: str, words: str) -> None:
    """It is refused before anything is sent: here there is nobody to send it to."""
    run = inferbus(*verb, "--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1ms", "--param", parameter)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr.splitlines()[-1]
    assert len(run.stderr) < 1000
    assert "Traceback" not in run.stderr


class TestFolders:
    def test_a_chat_without_its_history(self, way: tuple[str, ...], tmp_path: Path) -> None:
        """The folder is a file, the file is a folder: the chat goes on without."""
        (tmp_path / "file").touch()
        (tmp_path / "folder" / "inferbus" / "chat-history").mkdir(parents=True)
        for state in ("file", "folder"):
            seen = in_terminal(
                "-c",
                f'printf "hello\\n/quit\\n" | script -qec "{PROGRAM} chat {shlex.join(way)}" /dev/null',
                program="bash",
                env={"XDG_STATE_HOME": str(tmp_path / state), "PROMPT_TOOLKIT_NO_CPR": "1"},
            )
            assert "You said: hello" in seen.text
            assert "Traceback" not in seen.text
            assert "Unhandled exception" not in seen.text

    def test_a_worker_without_its_state(self, broker: Mosquitto, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "w1.sqlite").mkdir()
        (tmp_path / "w2.sqlite").write_text("this is no database, but a text that is long enough to be taken for one")
        for worker, folder in (("w0", tmp_path / "file" / "x"), ("w1", tmp_path), ("w2", tmp_path)):
            run = shell(
                'inferbus serve --engine simulated --ack after-reply "$@"',
                *("--broker", broker.url, "--worker-id", worker, "--state-dir", str(folder)),
            )
            in_a_sentence(run, 2, "state folder")
            assert b"[Errno" not in run.stderr
