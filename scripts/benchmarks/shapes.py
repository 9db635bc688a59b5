"""Shapes of models whose weights are random, for the engine's suites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's, as its `config.json` has it."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int


#: The three larger ones are those of published models of 1, 3 and 4 billion parameters. Their vocabulary is the demo
#: model's, whose tokenizer is at hand; `tiny` is for trying the option itself.
SHAPES: Final = {
    "tiny": Shape(256, 512, 2, 4, 2, 64),
    "1b": Shape(2048, 8192, 16, 32, 8, 64),
    "3b": Shape(3072, 8192, 28, 24, 8, 128),
    "4b": Shape(2560, 9728, 36, 32, 8, 128),
}
