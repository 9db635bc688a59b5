"""`inferbus stress` says no to what cannot be meant, before the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferbus_client.cli.stress import stress

#: Nobody listens here: what is refused before the run is refused before this is noticed.
NOWHERE = ("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "1s")


def stress_with(*arguments: str) -> Result:
    return CliRunner().invoke(stress, [*NOWHERE, *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--duration", "5s", "--messages", "3"), "--messages does not go with --duration"),
        (("--request-rate", "5", "--messages", "3"), "--messages does not go with --request-rate"),
        (("--request-rate", "5", "--clients", "3"), "--clients does not go with --request-rate"),
        (("--sweep", "1,2", "--clients", "3"), "--clients does not go with --sweep"),
        (("--sweep", "1,2", "--request-rate", "5"), "--sweep does not go with --request-rate"),
        (("--find-concurrency", "--clients", "3"), "--clients does not go with --find-concurrency"),
        (("--find-concurrency", "--sweep", "1,2"), "--sweep does not go with --find-concurrency"),
        (("--find-concurrency", "--request-rate", "5"), "--request-rate does not go with --find-concurrency"),
        (("--find-concurrency", "--ramp-up", "1s"), "--ramp-up does not go with --find-concurrency"),
        (("--find-concurrency", "--goodput", "ttft:5"), "--goodput does not go with --find-concurrency"),
        (("--find-concurrency", "--max-p95", "1s"), "--max-p95 does not go with --find-concurrency"),
        (("--find-concurrency", "--min-throughput", "1"), "--min-throughput does not go with --find-concurrency"),
        (("--find-concurrency", "--seed", "1"), "--seed needs --request-rate"),
        (("--find-concurrency", "--messages", "1", "--duration", "1s"), "--messages does not go with --duration"),
        (("--burstiness", "2"), "--burstiness needs --request-rate"),
        (("--max-concurrency", "2"), "--max-concurrency needs --request-rate"),
        (("--seed", "2"), "--seed needs --request-rate"),
        (("--request-rate", "inf", "--burstiness", "2"), "--burstiness does not go with --request-rate inf"),
        (("--request-rate", "inf", "--seed", "2"), "--seed does not go with --request-rate inf"),
        (("--request-rate", "inf", "--ramp-up", "2s"), "--ramp-up does not go with --request-rate inf"),
        (("--duration", "5s", "--ramp-up", "6s"), "--ramp-up is longer than --duration"),
        (("--request-rate", "5", "--ramp-up", "31s"), "--ramp-up is longer than --duration"),
        (("--duration", "0s"), "must be longer than nothing"),
        (("--request-rate", "nan"), "is not a number"),
        (("--request-rate", "-inf"), "is not in the range"),
        (("--request-rate", "5", "--burstiness", "nan"), "is not a number"),
        (("--request-rate", "5", "--burstiness", "1e-300"), "is not in the range"),
        (("--min-throughput", "nan"), "is not a number"),
        (("--min-throughput", "-1"), "is not in the range"),
        (("--no-stream", "--max-first-token", "1s"), "--max-first-token needs --stream"),
        (("--no-stream", "--goodput", "ttft:5"), "--goodput ttft needs --stream"),
        (("--goodput", "itl:5"), "must be ttft, tpot or e2el, a colon and a time"),
        (("--goodput", "ttft:soon"), "must be ttft, tpot or e2el, a colon and a time"),
        (("--goodput", "ttft"), "must be ttft, tpot or e2el, a colon and a time"),
        (("--session", "mine"), "No such option"),
        (("--max-p95", "soon"), "duration"),
    ],
)
def test_options_that_cannot_be_meant(arguments: tuple[str, ...], words: str) -> None:
    run = stress_with(*arguments)
    assert run.exit_code == 2, run.output
    assert words in " ".join(run.output.split())


@pytest.mark.parametrize("option", ["--plot", "--result-filename"])
@pytest.mark.parametrize(("name", "words"), [("nowhere/x.png", "there is no folder"), ("folder.png", "is a folder")])
def test_a_file_that_cannot_be_written(option: str, name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    run = stress_with(option, str(tmp_path / name))
    assert run.exit_code == 2
    assert words in run.output


@pytest.mark.parametrize("name", ["plot.doc", "plot", "plot.json"])
def test_a_plot_in_no_known_format(name: str, tmp_path: Path) -> None:
    run = stress_with("--plot", str(tmp_path / name))
    assert run.exit_code == 2
    assert ".png, .svg or .pdf" in run.output
