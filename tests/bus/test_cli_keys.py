"""`inferbus keys`: a key is printed once and alone, its file holds a hash, and what it is told wrong it says."""

from __future__ import annotations

import json
import re
import stat
import threading
from pathlib import Path
from subprocess import CompletedProcess
from typing import Final

import pytest

from inferbus_client.exits import Exit
from inferbus_client.gateway.keys import ApiKeys
from support.inferbus import inferbus
from support.terminal import in_terminal

TOKEN: Final = re.compile(r"ib-[0-9a-f]{48}\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def keys(file: Path, *arguments: str) -> CompletedProcess[str]:
    return inferbus("keys", *arguments, "--file", str(file))


def add(file: Path, *arguments: str) -> str:
    """A new key."""
    run = keys(file, "add", *arguments)
    assert run.returncode == Exit.OK, run.stderr
    assert TOKEN.fullmatch(run.stdout)  # for a pipe, the key alone
    return run.stdout.strip()


def test_a_new_key_is_printed_alone_and_holds_at_once(file: Path) -> None:
    token = add(file, "alice", "--project", "a", "--project", "b,c", "--rate-limit", "60/60s", "--max-concurrent", "4")
    other = add(file, "board", "--operator")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()
    found, board = (ApiKeys(file).find(one) for one in (token, other))
    assert found is not None
    assert board is not None
    assert (found.name, found.projects, found.max_concurrent) == ("alice", frozenset("abc"), 4)
    assert (found.is_operator, board.is_operator, board.projects) == (False, True, None)
    assert [one for one in file.parent.iterdir() if one != file] == []


def test_the_list_shows_what_each_may_do_and_no_hash(file: Path) -> None:
    add(file, "alice", "--project", "a", "--rate-limit", "60/60s", "--max-concurrent", "4")
    add(file, "board", "--operator")
    shown = keys(file, "list")
    rows = [line.split() for line in shown.stdout.splitlines() if line.strip()]
    assert rows[0] == ["key", "projects", "rate", "limit", "at", "once", "operator"]
    assert rows[2:] == [["alice", "a", "60/1m", "4", "no"], ["board", "all", "off", "any", "yes"]]
    as_json = keys(file, "list", "--json")
    assert json.loads(as_json.stdout) == {
        "alice": {"projects": ["a"], "rateLimit": "60/1m", "maxConcurrent": 4, "operator": False},
        "board": {"projects": None, "rateLimit": None, "maxConcurrent": None, "operator": True},
    }
    assert "sha256" not in shown.stdout + as_json.stdout


def test_a_dumb_terminal_gets_a_list_as_narrow_as_it_is(file: Path) -> None:
    add(file, "alice", "--project", "general", "--project", "another-project", "--rate-limit", "60/60s")
    seen = in_terminal("keys", "list", "--file", str(file), columns=40, env={"TERM": "dumb"})
    assert "alice" in seen.text
    assert max(map(len, seen.text.splitlines())) <= 40


def test_a_removed_key_is_gone_and_the_others_stay(file: Path) -> None:
    tokens = {name: add(file, name) for name in ("alice", "bob")}
    assert keys(file, "remove", "alice").stdout == "alice is removed\n"
    found = {name: ApiKeys(file).find(token) for name, token in tokens.items()}
    assert found["alice"] is None
    assert found["bob"] is not None
    assert keys(file, "remove", "bob").returncode == Exit.OK
    assert len(ApiKeys(file)) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", "alice"], "has a key alice already"),
        (["add", "a/b"], "NAME: a key's name matches"),
        (["add", "bob", "--rate-limit", "60"], "--rate-limit: must be a number per time"),
        (["add", "bob", "--rate-limit", ""], "--rate-limit: must be a number per time"),
        (["add", "bob", "--max-concurrent", "0"], "--max-concurrent: must be at least 1"),
        (["add", "bob", "--project", "a/b"], "--project: 'a/b' is no project name"),
        (["add", "bob", "--project", ""], "--project: '' is no project name"),
        (["remove", "alcie"], "has no key alcie; is alice meant?"),
        (["lits"], "No such command 'lits'"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(file: Path, arguments: list[str], complaint: str) -> None:
    add(file, "alice")
    before = file.read_bytes()
    run = keys(file, *arguments)
    assert (run.returncode, run.stdout) == (Exit.USAGE, "")
    assert complaint in run.stderr
    assert "Traceback" not in run.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["keys: [", "", "keys: {alice: {hash: secret}}"])
def test_a_file_that_holds_something_else_is_never_overwritten(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)
    for arguments in (["add", "bob"], ["remove", "bob"], ["list"]):
        run = keys(file, *arguments)
        assert run.returncode == Exit.USAGE
        assert str(file) in run.stderr
        assert "secret" not in run.stderr
    assert file.read_text() == text


def test_comments_that_are_lost_are_said(file: Path) -> None:
    add(file, "alice")
    file.write_text("# of the kitchen\n" + file.read_text())
    run = keys(file, "add", "bob")
    assert "comments" in run.stderr
    assert "# of the kitchen\n" in run.stderr
    assert TOKEN.fullmatch(run.stdout)
    assert "comments" not in keys(file, "add", "carol").stderr


def test_json_stays_json(file: Path) -> None:
    file.write_text('{"keys": {}}')
    file.chmod(0o600)
    add(file, "alice", "--rate-limit", "1/1s")
    assert json.loads(file.read_text())["keys"]["alice"]["rate_limit"] == "1/1s"


def test_a_link_and_the_rights_of_the_file_stay(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "keys"
    real.parent.mkdir()
    file.symlink_to(real)
    add(file, "alice")
    real.chmod(0o640)
    add(file, "bob")
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert len(ApiKeys(file)) == 2


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    run = keys(tmp_path / "no" / "keys.yaml", "add", "alice")
    assert (run.returncode, run.stdout) == (Exit.FAILED, "")
    assert run.stderr == f"inferbus: {tmp_path / 'no'}: No such file or directory\n"


def test_two_who_write_at_once_both_have_their_key(file: Path) -> None:
    runs = [threading.Thread(target=add, args=(file, f"key-{number}")) for number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(ApiKeys(file)) == 4


def test_the_help_says_each_verb_in_a_whole_sentence() -> None:
    _, _, verbs = inferbus("keys", "--help").stdout.partition("Commands:\n")
    said = [line.split(maxsplit=1) for line in verbs.strip().splitlines()]
    assert [name for name, _ in said] == ["add", "list", "remove"]
    assert all(sentence.endswith(".") and not sentence.endswith("...") for _, sentence in said)
