"""The wheels that `scripts/build` makes, installed where there is nothing else: each answers or asks a question.

The worker's wheel asks for neither of vLLM's builds by itself: they are its extras [cpu] and [gpu]. So it is small
enough to be tried here, on the simulated engine.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client import __version__
from inferbus_client.contract import topics
from support.inferbus import environment
from support.installation import QUESTION, Installation
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.scripts import ROOT, Running
from support.waiting import until

StartWorker = Callable[..., Any]
Install = Callable[..., Installation]

pytestmark = pytest.mark.slow

#: All that the library alone brings to a device.
SLIM: Final = {
    *("inferbus_client", "paho_mqtt", "pydantic", "pydantic_core", "pydantic_settings", "python_dotenv", "pyyaml"),
    *("annotated_types", "typing_extensions", "typing_inspection"),
}
#: And its commands.
OF_THE_COMMANDS: Final = {"click", "rich", "markdown_it_py", "mdurl", "pygments", "prompt_toolkit", "wcwidth"}
#: And the worker.
OF_THE_WORKER: Final = {"inferbus_worker", "structlog", "cachetools"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels that the script makes, by their wing."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [ROOT / "scripts" / "build", folder], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return {path.name.split("-")[0].removeprefix("inferbus_"): path for path in folder.iterdir()}


@pytest.fixture
def install(wheels: dict[str, Path], tmp_path: Path) -> Install:
    """`install("{client}")` into a fresh environment: a line of pip's requirements, wheels by their wing."""
    return lambda what: Installation(tmp_path / "venv", f"pip install {what.format_map(wheels)}")


def test_there_is_one_wheel_for_each_wing_and_both_have_the_version_that_is_written_once(
    wheels: dict[str, Path],
) -> None:
    assert {wing: path.name for wing, path in wheels.items()} == {
        wing: f"inferbus_{wing}-{__version__}-py3-none-any.whl" for wing in ("client", "worker")
    }
    with zipfile.ZipFile(wheels["worker"]) as wheel:
        metadata = wheel.read(f"inferbus_worker-{__version__}.dist-info/METADATA").decode()
    assert f"Requires-Dist: inferbus-client[cli]=={__version__}\n" in metadata


def test_a_wheel_holds_all_files_of_its_package_and_none_besides(wheels: dict[str, Path]) -> None:
    for wing, path in wheels.items():
        package = ROOT / wing / f"inferbus_{wing}"
        there = {str(file.relative_to(package.parent)) for file in package.rglob("*") if file.is_file()}
        with zipfile.ZipFile(path) as wheel:
            packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert packed == {name for name in there if "__pycache__" not in name}


def test_the_client_alone_is_slim_and_asks(install: Install, broker: Mosquitto, start_worker: StartWorker) -> None:
    installed = install("{client}")
    assert installed.packages == SLIM
    start_worker(project="slim-wheel")
    asked = installed.run("python", "-c", QUESTION, broker.url, "slim-wheel")
    assert asked.stdout == "one question\n", asked.stderr


def test_the_client_with_its_commands_asks(install: Install, broker: Mosquitto, start_worker: StartWorker) -> None:
    installed = install("'{client}[cli]'")
    assert installed.packages == SLIM | OF_THE_COMMANDS
    start_worker(project="commands-wheel")
    asked = installed.run("inferbus", "ask", "hello", "--broker", broker.url, "--project", "commands-wheel")
    assert asked.stdout == "hello\n", asked.stderr
    said = installed.run("inferbus", "--version").stdout.splitlines()
    assert {f"inferbus-client {__version__}", "inferbus-worker is not installed", "vllm is not installed"} < set(said)


def test_the_worker_serves_on_the_simulated_engine(install: Install, broker: Mosquitto) -> None:
    installed = install("'{client}[cli]' '{worker}'")
    assert installed.packages == SLIM | OF_THE_COMMANDS | OF_THE_WORKER
    said = installed.run("inferbus", "--version").stdout.splitlines()
    assert {f"inferbus-client {__version__}", f"inferbus-worker {__version__}", "vllm is not installed"} < set(said)
    where = ("--broker", broker.url, "--project", "worker-wheel")
    serve = ("serve", "--engine", "simulated", "--worker-id", "wheel", *where)
    ours = {name: "" for name in os.environ if name not in environment()}
    with (
        Listener(broker, topics.presence("wheel")) as presence,
        Running([installed.path_of("inferbus"), *serve], env=ours) as worker,
    ):
        until(lambda: any('"ready"' in heard.text for heard in presence.heard) or worker.process.poll() is not None)
        asked = installed.run("inferbus", "ask", "hello", *where)
        assert asked.stdout == "hello\n", asked.stderr + worker.err
        worker.process.terminate()
        assert worker.wait(60) == 0, worker.err
