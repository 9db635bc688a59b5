"""Writes the trained model as the files that vLLM loads."""

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from . import tokenizer as tokenizers_

_PUBLIC_MODE = 0o644


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Replace the model files in ``folder``, each at once, so that no reader sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        written = Path(scratch)
        _write(model, tokenizer, written)
        for file in sorted(written.iterdir()):
            file.chmod(_PUBLIC_MODE)
            file.replace(folder / file.name)


def load(folder: Path) -> tuple[LlamaForCausalLM, Tokenizer]:
    """The model and the tokenizer that ``export`` has written to ``folder``, to be trained further."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def _write(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    smaller = LlamaForCausalLM(model.config)
    smaller.load_state_dict(model.state_dict())
    smaller = smaller.to(torch.bfloat16)
    smaller.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id
    )
    smaller.save_pretrained(folder)
    tokenizers_.save(tokenizer, folder, model.config.max_position_embeddings)
