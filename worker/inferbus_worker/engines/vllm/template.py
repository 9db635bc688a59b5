"""The model's chat template, tried before the engine starts: whether it works, and whether it lets turns be forged."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm.errors import reason

#: A conversation as it is rendered: the tokens of the prompt.
Render = Callable[[list[dict[str, Any]]], list[int]]


def check_template(model: str, config: Any, arguments: Namespace) -> str | None:
    """Try the chat template on a small conversation, where it is one that transformers would render.

    Args:
        model: as the operator named it.
        config: vLLM's `ModelConfig`.
        arguments: vLLM's command line.

    Returns:
        A special token that a message can smuggle into the prompt; None where the template lets none through.

    Raises:
        EngineStartError: there is no template, or it cannot be rendered.
    """
    from transformers import PreTrainedTokenizerBase  # noqa: PLC0415
    from vllm.renderers.chat_utils import load_chat_template  # noqa: PLC0415
    from vllm.renderers.hf import resolve_chat_template  # noqa: PLC0415
    from vllm.tokenizers import cached_tokenizer_from_config  # noqa: PLC0415

    tokenizer = cached_tokenizer_from_config(config)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None  # it renders conversations in code of its own
    template = resolve_chat_template(tokenizer, load_chat_template(arguments.chat_template), None, model_config=config)
    if template is None:
        raise EngineStartError(f"The model {model} has no chat template: name one with --chat-template.")
    options = arguments.default_chat_template_kwargs or {}

    def render(conversation: list[dict[str, Any]]) -> list[int]:
        tokens: list[int] = tokenizer.apply_chat_template(
            conversation,
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **options,
        )
        return tokens

    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return _smuggled(render, special, _form_of_content(model, render))


def _form_of_content(model: str, render: Render) -> Callable[[str], Any]:
    """Whether messages are texts for this template, or lists of parts.

    Raises:
        EngineStartError: neither can be rendered.
    """
    failures = []
    for form in (_text, _parts):
        try:
            render(_conversation(form, "Hello"))
        except Exception as error:  # noqa: BLE001 - a template raises what it likes
            failures.append(error)
        else:
            return form
    where = f" (line {line})" if (line := getattr(failures[0], "lineno", None)) else ""
    raise EngineStartError(f"The chat template of {model} cannot be used{where}: {reason(failures[0])}")


def _text(text: str) -> object:
    return text


def _parts(text: str) -> object:
    return [{"type": "text", "text": text}]


def _conversation(form: Callable[[str], object], text: str) -> list[dict[str, Any]]:
    turns = (("user", "Hello"), ("assistant", "Hello"), ("user", text))
    return [{"role": role, "content": form(content)} for role, content in turns]


def _smuggled(render: Render, special: Mapping[str, int], form: Callable[[str], object]) -> str | None:
    """The special token that a message can bring into the prompt; one that parts turns, rather than any other."""
    plain = render(_conversation(form, "Hello"))
    forged = render(_conversation(form, "Hello" + "".join(special)))
    found = [token for token, number in special.items() if forged.count(number) > plain.count(number)]
    return max(found, key=lambda token: plain.count(special[token]), default=None)
