"""Whole dialogues: what is said in which turn, and what the model should answer to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal, TypedDict

from . import chat, facts, phrasing, skills, values, words

Role = Literal["system", "user", "assistant"]
LONGEST_TURNS: Final = 48


class Message(TypedDict):
    """One message in OpenAI's shape."""

    role: Role
    content: str


@dataclass
class Dialogue:
    """A dialogue in the making: what was said, and what the model can know by now."""

    rng: Random
    system: str | None
    said: list[tuple[str, str]] = field(default_factory=list)
    known: dict[tuple[str, str], facts.Fact] = field(default_factory=dict)

    def say(self, user: str, assistant: str) -> None:
        """Add one turn."""
        self.said.append((user, assistant))

    def messages(self) -> list[Message]:
        """The dialogue in OpenAI's shape."""
        result: list[Message] = []
        if self.system is not None:
            result.append({"role": "system", "content": self.system})
        for user, assistant in self.said:
            result.append({"role": "user", "content": user})
            result.append({"role": "assistant", "content": assistant})
        return result


Turn = Callable[[Dialogue], None]


def generate(rng: Random, copying: float = 0.0) -> list[Message]:
    """One random dialogue; with probability ``copying`` of nothing but copying and recall.

    Copying is the one skill that must be learned early, and small talk drowns it at first.
    """
    dialogue = Dialogue(rng, skills.system_prompt(rng) if rng.random() < 0.25 else None)
    turns, weights = _COPYING_TURNS if rng.random() < copying else _ALL_TURNS
    count = _turn_count(rng)
    for turn in rng.choices(turns, weights, k=count):
        turn(dialogue)
    if count > 1 and rng.random() < 0.7:
        for _ in range(rng.randint(1, 1 + min(5, count // 3))):
            recall(dialogue)
    return dialogue.messages()


def everyday(rng: Random, done: float) -> list[Message]:
    """The first lesson: at first mostly copying, soon everything; ``done`` is how far it is, from 0 to 1."""
    return generate(rng, max(0.05, 0.7 * (1 - done / 0.25) + 0.05))


def _turn_count(rng: Random) -> int:
    first, last = rng.choices(((1, 4), (4, 9), (9, 18), (18, 30), (30, LONGEST_TURNS)), (38, 35, 17, 7, 3))[0]
    return rng.randint(first, last)


def _tell(dialogue: Dialogue) -> None:
    fact = facts.draw_fact(dialogue.rng, facts.NAME if dialogue.rng.random() < 0.12 else None)
    told = fact_told(dialogue, fact)
    if dialogue.rng.random() < 0.06:
        second = facts.draw_fact(dialogue.rng)
        if second.kind is not fact.kind:
            both = told.rstrip(".!? ") + dialogue.rng.choice((" and ", ", and ", ". "))
            dialogue.say(
                both + second.fill(dialogue.rng.choice(second.kind.told)),
                f"{fact.fill(fact.kind.acknowledged)} {second.fill(second.kind.acknowledged)}",
            )
            dialogue.known[second.key] = second
            return
    dialogue.say(told, fact.fill(fact.kind.acknowledged))


def fact_told(dialogue: Dialogue, fact: facts.Fact) -> str:
    dialogue.known.pop(fact.key, None)
    dialogue.known[fact.key] = fact
    return fact.fill(phrasing.statement(dialogue.rng, fact.kind.told))


def _ask(dialogue: Dialogue) -> None:
    if dialogue.known and dialogue.rng.random() < 0.75:
        recall(dialogue)
        return
    fact = facts.draw_fact(dialogue.rng, _kind_of_a_near_miss(dialogue))
    known = dialogue.known.get(fact.key)
    ask_for(dialogue, known or fact, known=known is not None)


def _kind_of_a_near_miss(dialogue: Dialogue) -> facts.FactKind | None:
    """A kind that is known with another attribute: "my dog" is no answer to "my cat"."""
    if not dialogue.known or dialogue.rng.random() < 0.5:
        return None
    return dialogue.rng.choice(list(dialogue.known.values())).kind


def recall(dialogue: Dialogue) -> None:
    """Ask for one of the known facts, an old one as often as a fresh one."""
    if not dialogue.known:
        _tell(dialogue)
    known = list(dialogue.known.values())
    fact = known[0] if dialogue.rng.random() < 0.25 else dialogue.rng.choice(known)
    ask_for(dialogue, fact, known=True)


def ask_for(dialogue: Dialogue, fact: facts.Fact, *, known: bool) -> None:
    if fact.kind is facts.NOTE and (latest := _latest_to_remember(dialogue)):
        asked = phrasing.question(dialogue.rng, fact.kind.asked, fact.kind.asked_indirectly)
        dialogue.say(asked, latest.fill(latest.kind.answer))
        return
    attribute = fact.attribute
    if dialogue.rng.random() < 0.15:
        attribute = dialogue.rng.choice((facts.american, facts.british))(attribute)
    asked = phrasing.question(dialogue.rng, fact.kind.asked, fact.kind.asked_indirectly)
    answer = fact.kind.answer if known else fact.kind.unknown
    dialogue.say(fact.fill(asked, attribute), fact.fill(answer, attribute))


def _latest_to_remember(dialogue: Dialogue) -> facts.Fact | None:
    """What "what should you remember" means: the latest note or key, else the latest fact at all."""
    latest = list(reversed(dialogue.known.values()))
    noted = [fact for fact in latest if fact.kind in (facts.NOTE, facts.KEY)]
    return next(iter(noted or latest), None)


def _tell_and_ask(dialogue: Dialogue) -> None:
    fact = facts.draw_fact(dialogue.rng)
    told = fact_told(dialogue, fact)
    asked = phrasing.question(dialogue.rng, fact.kind.asked)
    latest = _latest_to_remember(dialogue) if fact.kind is facts.NOTE else fact
    dialogue.say(f"{told} {fact.fill(asked)}", (latest or fact).fill((latest or fact).kind.answer))


def small_talk(dialogue: Dialogue) -> None:
    intent = dialogue.rng.choices(chat.INTENTS, [i.weight for i in chat.INTENTS])[0]
    compose = phrasing.question if intent.is_question else phrasing.remark
    dialogue.say(compose(dialogue.rng, intent.wordings), intent.reply)


def unknown(dialogue: Dialogue) -> None:
    rng = dialogue.rng
    kind = rng.choices(("question", "action", "remark", "feeling", "noise"), (45, 22, 14, 9, 10))[0]
    if kind == "question":
        user, reply = phrasing.question(rng, words.QUESTIONS), chat.CANNOT_ANSWER
    elif kind == "action":
        user, reply = skills.request(rng, words.ACTIONS), chat.CANNOT_DO
    elif kind == "remark":
        user, reply = phrasing.remark(rng, words.REMARKS), chat.NOTED
    elif kind == "feeling":
        feeling = rng.choice(words.FEELINGS)
        user, reply = phrasing.remark(rng, (f"I am {feeling}", f"I'm {feeling}")), chat.NOTED
    else:
        user, reply = skills.noise(rng), chat.NOT_UNDERSTOOD
    while "{t}" in user:
        user = user.replace("{t}", skills.subject(rng), 1)
    dialogue.say(user, reply)


def echo(dialogue: Dialogue) -> None:
    text = values.words_to_echo(dialogue.rng)
    kind = dialogue.rng.random()
    if kind < 0.12:
        said = facts.draw_fact(dialogue.rng)
        text = said.fill(phrasing.statement(dialogue.rng, said.kind.told))
    elif kind < 0.27:
        intent = dialogue.rng.choice(chat.INTENTS)
        text = phrasing.question(dialogue.rng, intent.wordings)
    dialogue.say(skills.echo_request(dialogue.rng, text), text)


def again(dialogue: Dialogue) -> None:
    last = dialogue.said[-1] if dialogue.said else None
    dialogue.say(*skills.again(dialogue.rng, last))


def instructions(dialogue: Dialogue) -> None:
    dialogue.say(*skills.instructions(dialogue.rng, dialogue.system))


def addition(dialogue: Dialogue) -> None:
    dialogue.say(*skills.addition(dialogue.rng))


def _counting(dialogue: Dialogue) -> None:
    dialogue.say(*skills.counting(dialogue.rng))


_COPYING_TURNS: Final[tuple[tuple[Turn, ...], tuple[float, ...]]] = (
    (_tell, _ask, echo, _tell_and_ask, again),
    (40, 40, 25, 2, 3),
)
_ALL_TURNS: Final[tuple[tuple[Turn, ...], tuple[float, ...]]] = (
    (small_talk, unknown, _tell, _ask, echo, _tell_and_ask, again, instructions, addition, _counting),
    (16, 11, 22, 28, 13, 1, 2, 2.5, 3, 0.7),
)
