"""Refuses at once a model whose weights alone are more than the device has: vLLM would find out after minutes."""

from __future__ import annotations

from argparse import Namespace

from inferbus_client.units import format_size
from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.estimate import NoEstimateError, Terms, estimate


def check_room(model: str, arguments: Namespace) -> None:
    """Compare what the model's own files say with what there is.

    Args:
        model: as the operator named it.
        arguments: vLLM's.

    Raises:
        EngineStartError: it could never fit. What cannot be reckoned is left to vLLM.
    """
    if getattr(arguments, "cpu_offload_gb", 0):
        return
    total = _device_memory()
    devices = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    terms = Terms(
        concurrency=1, dtype=str(arguments.dtype), quantization=arguments.quantization, devices=max(devices, 1)
    )
    try:
        weights = estimate(model, terms).weights_bytes
    except NoEstimateError:
        return
    if total is not None and weights > total:
        raise EngineStartError(
            f"{model} can never fit: its weights take {format_size(weights)} on each device, and there are "
            f"{format_size(total)}; a quantized one, or more devices (--tensor-parallel-size), may do."
        )


def _device_memory() -> int | None:
    """Bytes of one GPU, or of the host where the model runs on its processor; None where vLLM does not know."""
    from vllm.platforms import current_platform  # noqa: PLC0415

    try:
        return int(current_platform.get_device_total_memory())
    except Exception:  # noqa: BLE001 - each platform's own; then there is nothing to compare with
        return None
