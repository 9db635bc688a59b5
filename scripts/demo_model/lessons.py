"""The lessons after the everyday one: what was told long ago, what was never told, and sums.

In everyday dialogues most questions come soon after what they ask for, few ask for what the user never said, and sums
are rare. A model that has learned only from those answers with whatever it was told last, and guesses at sums.

The dialogues of every earlier lesson stay among those of a later one, or what they teach would be unlearned.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from . import facts, values, words
from .dialogue import (
    Dialogue,
    Message,
    Turn,
    addition,
    again,
    ask_for,
    echo,
    fact_told,
    generate,
    instructions,
    recall,
    small_talk,
    unknown,
)
from .skills import system_prompt

Draw = Callable[[Random, facts.FactKind | None], facts.Fact]

_SYSTEM_PROMPT: Final = 0.25
_COPYING: Final = 0.15
#: Words that share pieces with others that mean something to the model, such as "forget".
_ODD_THINGS: Final = ("widget", "budget", "nugget", "bucket", "helmet", "racket", "dialogue", "countdown", "namesake")
_KINDS_OF_THINGS: Final = ("type", "sort", "brand", "style", "flavour", "game", "part", "colour", "member", "make")


def memory(rng: Random, done: float) -> list[Message]:
    """The second lesson: mostly long dialogues, by their tokens."""
    del done
    kind = rng.random()
    if kind < 0.34:
        return generate(rng, _COPYING)
    if kind < 0.48:
        return _sums(rng).messages()
    return (_short(rng) if kind < 0.68 else _long(rng)).messages()


def honesty(rng: Random, done: float) -> list[Message]:
    """The third lesson: many short dialogues that tell one thing and ask for another, or for the same."""
    del done
    kind = rng.random()
    if kind < 0.35:
        return generate(rng, _COPYING)
    if kind < 0.4:
        return _sums(rng).messages()
    return (_contrast(rng) if kind < 0.78 else _long(rng)).messages()


def _long(rng: Random) -> Dialogue:
    """One fact, many turns of other things, and then the question for it; more questions follow."""
    dialogue = _empty(rng)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        small_talk(dialogue)
    fact = facts.draw_fact(rng, facts.NAME if rng.random() < 0.55 else None)
    _tell(dialogue, fact)
    between = rng.randint(4, 28) if rng.random() < 0.85 else rng.randint(28, 40)
    renamed = rng.random() < 0.15
    for turn in rng.choices(_BETWEEN, _BETWEEN_WEIGHTS, k=between):
        turn(dialogue)
        if renamed and rng.random() < 2 / between:
            _tell(dialogue, facts.draw_fact(rng, fact.kind))
    if rng.random() < 0.65:
        told = dialogue.known.get(fact.key, fact)
        ask_for(dialogue, told, known=True)
    for _ in range(rng.randint(2, 6)):
        _question(dialogue, untold=0.35)
        if rng.random() < 0.1:
            small_talk(dialogue)
    return dialogue


def _short(rng: Random) -> Dialogue:
    """A few turns, and questions of which most ask for what they did not tell."""
    dialogue = _empty(rng)
    for turn in rng.choices(_BETWEEN, _BETWEEN_WEIGHTS, k=rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        turn(dialogue)
    for _ in range(rng.randint(1, 3)):
        _question(dialogue, untold=0.6)
    return dialogue


def _contrast(rng: Random) -> Dialogue:
    """One or two facts, and then questions: for them, for their like, or for something with a made-up name."""
    dialogue = _empty(rng)
    if rng.random() < 0.2:
        small_talk(dialogue)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        fact = _of_something_odd(rng, facts.KEY if rng.random() < 0.2 else None)
        _tell(dialogue, fact)
        if rng.random() < 0.3:
            rng.choice((small_talk, echo, echo, unknown))(dialogue)
        if rng.random() < 0.1:
            _tell(dialogue, replace(fact, value=fact.kind.value(rng)))
    for _ in range(rng.randint(1, 3)):
        if dialogue.known and rng.random() < 0.5:
            recall(dialogue)
        else:
            _ask_for_untold(dialogue, _of_something_odd)
    return dialogue


def _of_something_odd(rng: Random, kind: facts.FactKind | None = None) -> facts.Fact:
    """A fact, now and then about "my favourite brulk" or "my lucky brulk"."""
    fact = facts.draw_fact(rng, kind)
    if fact.kind in (facts.FAVOURITE, facts.BELONGING) and rng.random() < 0.35:
        what = "favourite" if fact.kind is facts.FAVOURITE else rng.choice(words.ADJECTIVES)
        return replace(fact, attribute=f"{what} {_odd_thing(rng)}")
    return fact


def _odd_thing(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.2:
        return f"{rng.choice(_KINDS_OF_THINGS)} of {rng.choice((*words.THINGS, *words.NOUNS))}"
    first = values.word(rng).lower() if kind < 0.7 else rng.choice((*_ODD_THINGS, *words.NOUNS))
    return first if rng.random() < 0.7 else f"{first} {rng.choice((values.word(rng).lower(), rng.choice(words.NOUNS)))}"


def _sums(rng: Random) -> Dialogue:
    dialogue = _empty(rng)
    for _ in range(rng.randint(1, 20)):
        addition(dialogue)
    return dialogue


def _empty(rng: Random) -> Dialogue:
    return Dialogue(rng, system_prompt(rng) if rng.random() < _SYSTEM_PROMPT else None)


def _tell(dialogue: Dialogue, fact: facts.Fact) -> None:
    dialogue.say(fact_told(dialogue, fact), fact.fill(fact.kind.acknowledged))


def _tell_another(dialogue: Dialogue) -> None:
    """Any fact that no earlier one was about; seldom the user's name, so that it stays far away."""
    rng = dialogue.rng
    while True:
        fact = facts.draw_fact(rng)
        if fact.kind is facts.FAVOURITE and rng.random() < 0.12:
            fact = replace(fact, attribute=f"favourite {_odd_thing(rng)}")
        if fact.key not in dialogue.known and (fact.kind is not facts.NAME or rng.random() < 0.25):
            break
    _tell(dialogue, fact)


def _question(dialogue: Dialogue, untold: float) -> None:
    """For something never told, with this probability; else for something known, if there is anything."""
    if dialogue.known and dialogue.rng.random() >= untold:
        recall(dialogue)
    else:
        _ask_for_untold(dialogue)


def _ask_for_untold(dialogue: Dialogue, draw: Draw = facts.draw_fact) -> None:
    """As often as not it is of a kind that was told: "my dog" is no answer to "my cat"."""
    rng = dialogue.rng
    while True:
        kind = facts.NAME if rng.random() < 0.2 else None
        if dialogue.known and rng.random() < 0.4:
            kind = rng.choice(list(dialogue.known.values())).kind
        fact = draw(rng, kind)
        if fact.key not in dialogue.known and not (fact.kind is facts.NOTE and dialogue.known):
            break
    ask_for(dialogue, fact, known=False)


_BETWEEN: Final[tuple[Turn, ...]] = (small_talk, unknown, _tell_another, echo, addition, again, instructions, recall)
_BETWEEN_WEIGHTS: Final = (22, 12, 34, 18, 4, 1, 1.5, 4)
