"""Reasoning is told from the answer by vLLM's own parser, tried on a model whose every token is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferbus_worker.chat import Thinking
from inferbus_worker.engines.base import ChatCall, Completion, Sampling
from inferbus_worker.engines.vllm.engine import VllmEngine

#: Each word makes the model say the next one. The template ends the prompt with "go", or, when thinking is
#: off, with an empty thought, as the templates of reasoning models do.
SCRIPT = ["go", "<think>", "let", "me", "see", "</think>", "forty", "two", "</s>"]
TEMPLATE = "{% if enable_thinking | default(true) %}go{% else %}go <think> </think>{% endif %}"
HIDDEN = 64

pytestmark = pytest.mark.usefixtures("vllm_installed")


def write_scripted_model(path: Path) -> None:
    """A Llama whose layers do nothing: the head maps each one-hot embedding to the script's next word."""
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=len(SCRIPT),
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        eos_token_id=SCRIPT.index("</s>"),
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0 if weight.dim() == 1 else 0.0)
        for index in range(len(SCRIPT)):
            model.model.embed_tokens.weight[index, index] = 1.0
            model.lm_head.weight[(index + 1) % len(SCRIPT), index] = 10.0
    model.save_pretrained(path)
    write_tokenizer(path)


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(SCRIPT)}, unk_token="go"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="go")  # noqa: S106
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory, vllm_installed: None) -> Iterator[VllmEngine]:  # noqa: ARG001
    path = tmp_path_factory.mktemp("thinker")
    write_scripted_model(path)
    options = ["--reasoning-parser", "qwen3", "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "4"]
    engine = VllmEngine(str(path), [*options, "--kv-cache-memory-bytes", str(2**26)])
    engine.start()
    yield engine
    engine.stop(20)


def answer(engine: VllmEngine, thinking: Thinking, *, stream: bool) -> Completion:
    call = ChatCall([{"role": "user", "content": "?"}], Sampling(0.0, 1.0, 32), stream, thinking=thinking)
    done = engine.generate(call).wait(None)
    return done._replace(text=done.text.strip(), reasoning=done.reasoning.strip())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("thinking", "reasoning", "tokens"),
    [("show", "let me see", 8), ("hide", "", 8), ("off", "", 3)],
)
def test_thinking_is_shown_hidden_or_off(
    thinker: VllmEngine, thinking: Thinking, reasoning: str, tokens: int, *, stream: bool
) -> None:
    said = answer(thinker, thinking, stream=stream)
    assert (said.text, said.reasoning, said.finish_reason) == ("forty two", reasoning, "stop")
    assert said.usage is not None
    assert said.usage.completion_tokens == tokens
