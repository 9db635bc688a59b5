"""What processes print is in the worker's log, and why one failed is known. The processes here have no model."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm.errors import start_failure
from inferbus_worker.engines.vllm.output import EngineOutput

#: What stands at the beginning of a process that logs as the engine's processes do.
MARKED = """
import logging, os, sys
from inferbus_worker.engines.vllm.output import MarkedRecords
logging.getLogger().addHandler(MarkedRecords())
log = logging.getLogger("vllm.core")
"""
FAILS_TWICE = (
    MARKED
    + """
try:
    raise ValueError("not enough memory:\\n 3 GiB are needed")
except ValueError:
    log.exception("WorkerProc failed to start.")
try:
    raise RuntimeError("See stack trace for root cause.")
except RuntimeError:
    log.exception("EngineCore failed to start.")
"""
)
KILLED = "vLLM could not start m: a process of the engine was ended by"


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture) -> Iterator[EngineOutput]:
    caplog.set_level(logging.DEBUG)
    output = EngineOutput()
    yield output
    output.close()


def run(output: EngineOutput, *scripts: str) -> str | None:
    """Run scripts as the engine's processes are run; what is known of their failure."""
    with output.inherited():
        processes = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    for process in processes:
        process.wait(60)
    return output.close()


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[tuple[str, int, str]]:
    return [line for line in caplog.record_tuples if line[1] >= level]


def test_records_keep_their_logger_and_level(output: EngineOutput, caplog: pytest.LogCaptureFixture) -> None:
    assert run(output, MARKED + "log.error('%s%% of\\nit', 7); log.warning('{}')") is None
    assert lines(caplog) == [("vllm.core", logging.ERROR, "7% of\nit"), ("vllm.core", logging.WARNING, "{}")]


def test_what_is_only_printed_is_logged_line_by_line(output: EngineOutput, caplog: pytest.LogCaptureFixture) -> None:
    script = (
        "import os; print('out', flush=True); os.write(2, b'\\x1b[31mred\\x1b[0m\\r50%\\r100%\\n\\n\\xff'); print('!')"
    )
    assert run(output, script) is None
    assert lines(caplog) == [
        ("inferbus.engine", logging.INFO, text) for text in ("out", "red", "50%", "100%", "\N{REPLACEMENT CHARACTER}!")
    ]


def test_a_line_that_never_ends_is_cut(output: EngineOutput, caplog: pytest.LogCaptureFixture) -> None:
    run(output, "print('x' * 1_000_000)")
    assert sum(len(text) for _, _, text in lines(caplog)) == 1_000_000
    assert max(len(text) for _, _, text in lines(caplog)) <= 2 * 65_536


def test_the_cause_is_the_first_failure_that_does_not_point_at_another(output: EngineOutput) -> None:
    assert run(output, FAILS_TWICE) == "not enough memory: 3 GiB are needed"


def test_the_traceback_of_a_record_is_there_to_find_faults(
    output: EngineOutput, caplog: pytest.LogCaptureFixture
) -> None:
    run(output, FAILS_TWICE)
    assert [text for _, _, text in lines(caplog)] == ["WorkerProc failed to start.", "EngineCore failed to start."]
    exceptions = [getattr(record, "exception", "") for record in caplog.records]
    assert any("in <module>" in text and "3 GiB" in text for text in exceptions)


def test_a_process_that_ends_before_it_can_log_says_why_too(
    output: EngineOutput, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(output, "import json\njson.loads('{secret')").startswith("Expecting property name")  # type: ignore[union-attr]
    assert lines(caplog) == [
        ("inferbus.engine", logging.ERROR, "a process of the engine ended with json.decoder.JSONDecodeError")
    ]


def test_several_processes_at_once_do_not_mix(output: EngineOutput, caplog: pytest.LogCaptureFixture) -> None:
    run(output, *[MARKED + f"[log.error('%s', '{name}' * 500) for _ in range(200)]" for name in "abc"])
    said = [text for _, _, text in lines(caplog)]
    assert sorted(said) == [name * 500 for name in "abc" for _ in range(200)]


def test_this_process_prints_where_it_always_did(capfd: pytest.CaptureFixture[str]) -> None:
    output = EngineOutput()
    with output.inherited():
        os.write(2, b"inside\n")
    os.write(2, b"after\n")
    output.close()
    output.close()
    with pytest.raises(RuntimeError, match="closed"), output.inherited():
        pass
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize(
    ("error", "cause", "sentence"),
    [
        (EngineStartError("There is no model."), "x", "There is no model."),
        (ValueError("max_model_len: too long"), None, "vLLM could not start m: max_model_len: too long"),
        (
            RuntimeError("See root cause above. Failed core proc(s): {'EngineCore': 1}"),
            "why",
            "vLLM could not start m: why",
        ),
        (
            RuntimeError("See root cause above. Failed core proc(s): {'EngineCore': -9}"),
            None,
            f"{KILLED} SIGKILL, as the system does when memory runs out",
        ),
        (
            RuntimeError("See root cause above. Failed core proc(s): {'EngineCore': -11}"),
            None,
            f"{KILLED} SIGSEGV",
        ),
    ],
)
def test_a_failed_start_is_one_sentence(error: Exception, cause: str | None, sentence: str) -> None:
    assert start_failure("m", error, cause) == sentence
