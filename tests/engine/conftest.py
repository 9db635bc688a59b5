"""One real vLLM with the demo model, shared by the whole run: starting it takes half a minute."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from inferbus_worker.engines.vllm.engine import VllmEngine, parse_options
from support.needs import needs_module
from support.running_count import RunningCount


@pytest.fixture(scope="session")
def vllm_needed() -> None:
    """Skip, or fail in CI, where vLLM is not installed."""
    needs_module("vllm")


@pytest.fixture(scope="session")
def vllm_installed(vllm_needed: None) -> None:  # noqa: ARG001 - it has to be asked first
    """The same, and import it here.

    Its imports warn about their own dependencies, which is not for us to mend.
    """
    with warnings.catch_warnings(action="ignore"):
        parse_options("demo", [])


@pytest.fixture(scope="session")
def running() -> RunningCount:
    """How many requests `engine` has in its batch."""
    return RunningCount()


@pytest.fixture(scope="session")
def engine(vllm_installed: None, running: RunningCount) -> Iterator[VllmEngine]:  # noqa: ARG001 - it has to be asked first
    """A started engine with the demo model."""
    engine = VllmEngine("demo", [], stat_loggers=[running])
    with warnings.catch_warnings(action="ignore"):
        engine.start()
    yield engine
    engine.stop(20)
