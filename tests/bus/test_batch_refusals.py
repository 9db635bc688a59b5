"""What `inferbus batch` refuses before anything is sent: here there is nobody to send it to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from support.batch_files import request, write
from support.inferbus import inferbus


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str, str]:
    """The arguments that name the files."""
    return str(tmp_path / "requests.jsonl"), "-o", str(tmp_path / "answers.jsonl")


NOWHERE: Final = ("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1ms")


def refused(*arguments: str, words: str) -> None:
    run = inferbus("batch", *arguments, *NOWHERE)
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_files_that_cannot_be_meant(paths: tuple[str, str, str], tmp_path: Path) -> None:
    refused(*paths, words="does not exist")
    write(Path(paths[0]), [request("a")])
    refused(paths[0], words="Missing option '-o' / '--output'")
    refused(paths[0], "-o", str(tmp_path / "no" / "where"), words="there is no folder")
    refused(paths[0], "-o", str(tmp_path), words="is a folder")
    refused(str(tmp_path), "-o", str(tmp_path / "x"), words="is a directory")
    refused(paths[0], "-o", paths[0], words="REQUESTS and --output are one file")
    refused(*paths, "--errors", paths[2], words="--output and --errors are one file")
    (tmp_path / "link").hardlink_to(paths[0])
    refused(paths[0], "-o", str(tmp_path / "link"), words="are one file")
    refused(paths[0], "-o", "-", words="name it with --errors")
    (tmp_path / "diary").write_text("dear diary")
    refused(paths[0], "-o", str(tmp_path / "diary"), words="is no record of a batch")
    refused(*paths, "--errors", str(tmp_path / "diary"), words="is no record of a batch")
    assert (tmp_path / "diary").read_text() == "dear diary"
    assert not (tmp_path / "answers.jsonl").exists()


def test_lines_that_are_no_requests(paths: tuple[str, str, str], tmp_path: Path) -> None:
    write(Path(paths[0]), [request("a"), request("a"), "{", {"custom_id": None}])
    run = inferbus("batch", *paths, *NOWHERE)
    assert run.returncode == 2
    assert run.stderr.startswith(f"inferbus: {paths[0]} is no file of requests, and nothing was sent:\n")
    assert [line.split(":")[0].strip() for line in run.stderr.splitlines()[1:]] == ["line 2", "line 3", "line 4"]
    assert list(tmp_path.iterdir()) == [Path(paths[0])]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--concurrency", "0"), "1<=x<=10000"),
        (("--patience", "0s"), "longer than nothing"),
        (("--model", "no model"), "--model: must match"),
    ],
)
def test_options(paths: tuple[str, str, str], option: tuple[str, str], words: str) -> None:
    write(Path(paths[0]), [request("a")])
    refused(*paths, *option, words=words)


def test_a_broker_that_is_not_there(paths: tuple[str, str, str], tmp_path: Path) -> None:
    write(Path(paths[0]), [request("a")])
    assert inferbus("batch", *paths, *NOWHERE).returncode == 3
    assert list(tmp_path.iterdir()) == [Path(paths[0])]
