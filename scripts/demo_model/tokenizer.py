"""The tokenizer: byte-level BPE that splits a word alike wherever it stands, and the chat template.

A model this small copies a made-up word only if " Zorvek" and "Zorvek" become the same pieces. So a
leading space is part of a token for the commonest words alone, and a token of its own elsewhere;
digits stand alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .dialogue import Message

PADDING: Final = "<|pad|>"
END: Final = "<|end|>"
ROLES: Final = ("system", "user", "assistant")
SPECIAL_TOKENS: Final = (PADDING, END, *(f"<|{role}|>" for role in ROLES))
VOCABULARY_SIZE: Final = 1536
_SPACED_WORDS: Final = 420

CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('The demo model knows the roles system, user, assistant and tool, not ' + message['role']) -}}
{%- endif -%}
{%- if message['role'] == 'system' and not loop.first -%}
{{- raise_exception('The demo model takes a system message only as the first one') -}}
{%- endif -%}
{{- '<|' + ('user' if message['role'] == 'tool' else message['role']) + '|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] | trim | replace('<|', '< |') -}}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- if part['type'] != 'text' -%}
{{- raise_exception('The demo model takes text only, not ' + part['type']) -}}
{%- endif -%}
{{- '\\n' if not loop.first else '' -}}{{- part['text'] | trim | replace('<|', '< |') -}}
{%- endfor -%}
{%- endif -%}
{%- for call in message['tool_calls'] or [] -%}
{{- (call['function']['name'] + ' ' + call['function']['arguments'] | tojson) | replace('<|', '< |') -}}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def train(texts: Sequence[str]) -> Tokenizer:
    """A tokenizer for texts like these."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitter(_commonest_words(texts))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; ``longest`` is the model's context in tokens."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder, save_jinja_files=False)


class Encoder:
    """Turns dialogues into token ids, marking what the assistant says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._roles = {role: token_id(tokenizer, f"<|{role}|>") for role in ROLES}
        self._end = token_id(tokenizer, END)

    def encode(self, dialogues: Iterable[list[Message]]) -> list[tuple[list[int], list[bool]]]:
        """Per dialogue its ids, and for each id whether the model should learn to say it."""
        dialogues = list(dialogues)
        flat = [m["content"] for dialogue in dialogues for m in dialogue]
        encoded = iter(self._tokenizer.encode_batch_fast(flat))
        return [self._join([(m["role"], next(encoded).ids) for m in d]) for d in dialogues]

    def _join(self, messages: list[tuple[str, list[int]]]) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        spoken: list[bool] = []
        for role, content in messages:
            ids += [self._roles[role], *content, self._end]
            spoken += [False, *[role == "assistant"] * (len(content) + 1)]
        return ids, spoken


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token; ValueError where there is none."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return int(found)


def _commonest_words(texts: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"(?<= )[A-Za-z]+(?![A-Za-z0-9'_-])", text))
    return [word for word, _ in counts.most_common(_SPACED_WORDS)]


def _splitter(spaced: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    alternatives = "|".join(sorted(spaced, key=len, reverse=True))
    pattern = (
        rf" (?:{alternatives})(?![\p{{L}}\p{{N}}'_-])"
        r"|'(?:s|m|re|ll|ve|d|t)(?!\p{L})|\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"
    )
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
