"""Run by tests as a process of its own, which may crash: compiles JSON schemas as vLLM does, one a line.

Prints `ready`, then for each schema how many seconds the slowest step took: the check before the engine, the grammar,
and the masks of the first tokens.
"""

from __future__ import annotations

import json
import sys
import time

import llguidance.hf
import numpy as np
from llguidance import LLMatcher
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import AutoTokenizer

from inferbus_worker.engines.vllm.arguments import DEMO_PATH

_TOKENS = 8


def main() -> None:
    hugging_face = AutoTokenizer.from_pretrained(DEMO_PATH)
    tokenizer = llguidance.hf.from_tokenizer(hugging_face, len(hugging_face))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        slowest = slowest_step(json.dumps(json.loads(line)), tokenizer)
        sys.stdout.write(f"{slowest:.3f}\n")
        sys.stdout.flush()


def slowest_step(schema: str, tokenizer: llguidance.LLTokenizer) -> float:
    began = time.monotonic()
    grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": True})
    is_refused = LLMatcher.validate_grammar(grammar, None)
    seconds = [time.monotonic() - began]
    if is_refused:
        return seconds[0]
    began = time.monotonic()
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    seconds.append(time.monotonic() - began)
    mask = allocate_token_bitmask(1, tokenizer.vocab_size)
    for number in range(_TOKENS):
        began = time.monotonic()
        fill_next_token_bitmask(matcher, mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: tokenizer.vocab_size])
        allowed = allowed[allowed != tokenizer.eos_token]
        if matcher.is_stopped() or not len(allowed):
            break
        matcher.consume_token(int(allowed[7919 * number % len(allowed)]))
        seconds.append(time.monotonic() - began)
    return max(seconds)


if __name__ == "__main__":
    main()
