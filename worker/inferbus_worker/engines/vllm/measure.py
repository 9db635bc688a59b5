"""What a loaded model took, asked of vLLM's own processes. vLLM mixes this class into its workers by its name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Final

#: How vLLM is told of the class, unless the user has one of his own, and what is called then.
EXTENSION: Final = "inferbus_worker.engines.vllm.measure.Measure"
METHOD: Final = "inferbus_memory"


class Measure:
    """An extension of vLLM's workers; `self` is the worker, in vLLM's process."""

    model_runner: Any

    def inferbus_memory(self) -> dict[str, int]:
        """Bytes on this worker's device: `weights` and `kv_cache`.

        On a GPU the weights are what vLLM measured while it loaded them; on a CPU, where it does not, their tensors'.
        """
        runner = self.model_runner
        model = runner.get_model()
        tensors = itertools.chain(model.parameters(), model.buffers())
        measured = int(getattr(runner, "model_memory_usage", 0))
        return {
            "weights": measured or _held(tensors) + sum(map(_moved, model.modules())),
            "kv_cache": _held(_flat(runner.kv_caches)),
        }


async def bytes_taken(engine: Any) -> int | None:
    """What vLLM's processes say that the model and its KV cache take, on all devices together.

    None where the user has an extension of his own in the place of ours.
    """
    config = engine.vllm_config.parallel_config
    if config.worker_extension_cls != EXTENSION:
        return None
    said = await engine.collective_rpc(METHOD)  # of the first of the engines that share the requests; they are alike
    return int(sum(took["weights"] + took["kv_cache"] for took in said)) * int(config.data_parallel_size)


def _flat(caches: Any) -> Iterable[Any]:
    """A layer has one tensor, or several."""
    for cache in caches:
        if isinstance(cache, list | tuple):
            yield from _flat(cache)
        else:
            yield cache


def _moved(module: Any) -> int:
    """Bytes of a linear layer's weights where a CPU's kernels have taken them over, in a layout of their own."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.numel() or not hasattr(module, "output_size"):
        return 0
    rows = getattr(module, "output_size_per_partition", module.output_size)
    columns = getattr(module, "input_size_per_partition", module.input_size)
    return int(rows * columns * weight.element_size())


def _held(tensors: Iterable[Any]) -> int:
    """Bytes of the tensors' storages; what several of them share counts once."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (each.untyped_storage() for each in tensors)}
    return sum(storages.values())
