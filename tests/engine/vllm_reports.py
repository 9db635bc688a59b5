"""Loads models into vLLM, one after the other in this one process, and prints what each took, a JSON object a line.

Standard input: a line of JSON for each, arguments of vLLM's `LLM`.
"""

from __future__ import annotations

import json
import os
import sys

from inferbus_worker.engines.vllm.arguments import prepare_environment
from inferbus_worker.engines.vllm.measure import EXTENSION, METHOD

_ALIKE = {
    "enforce_eager": True,
    "load_format": "dummy",
    "skip_tokenizer_init": True,
    "distributed_executor_backend": "uni",
    "kv_cache_memory_bytes": 256 * 2**20,
    "max_model_len": 512,
    "max_num_seqs": 2,
    "worker_extension_cls": EXTENSION,
}


def main() -> None:
    prepare_environment()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints there, too
    from vllm import LLM  # noqa: PLC0415
    from vllm.distributed import cleanup_dist_env_and_memory  # noqa: PLC0415

    for line in sys.stdin:
        model = LLM(**(_ALIKE | json.loads(line)))
        (took,) = model.collective_rpc(METHOD)
        (specs,) = model.collective_rpc("get_kv_cache_spec")
        took["kv_per_token"] = sum(spec.page_size_bytes / spec.block_size for spec in specs.values())
        took["kv_tokens"] = model.llm_engine.vllm_config.cache_config.kv_cache_size_tokens
        print(json.dumps(took), file=out, flush=True)
        model.llm_engine.engine_core.shutdown()
        del model
        cleanup_dist_env_and_memory()


if __name__ == "__main__":
    main()
