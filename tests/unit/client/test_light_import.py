"""A Raspberry Pi imports the client: nothing heavy comes with it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "vllm", "transformers", "numpy", "structlog", "inferbus_worker", "matplotlib")
TERMINAL = ("rich", "prompt_toolkit", "click")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import inferbus_client")
    assert not loaded & {*HEAVY, *TERMINAL, "pydantic", "paho"}


def test_the_clients_need_neither_an_engine_nor_a_terminal() -> None:
    loaded = loaded_by("from inferbus_client import Client, AsyncClient, RequestFailedError")
    assert "paho" in loaded
    assert not loaded & {*HEAVY, *TERMINAL}


def test_a_person_who_does_not_wait_for_the_import_gets_no_traceback() -> None:
    interrupted = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "inferbus_client.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from inferbus_client.__main__ import main
main()
"""
    run = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (130, "")


def test_every_exported_name_is_there() -> None:
    loaded_by("import inferbus_client as i\nfor name in i.__all__: getattr(i, name)")
