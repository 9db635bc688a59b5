"""The exam's conversations: held-out values, wordings, distances, and what was never told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from . import exam_phrases, values
from .phrasing import capitalised

_PER_WORDING: Final = 6
_ASK_NAME: Final = "What is my name?"
_NEVER_TOLD: Final = (
    _ASK_NAME, "Who am I?", "Do you remember my name?", "What is my favourite colour?", "Where do I live?",
    "What is my dog called?", "How old am I?", "What was the number?", "What is my lucky gadget?",
)  # fmt: skip
#: The lessons were made with the answers to those above in view; these were first asked when the training was over.
_NEVER_TOLD_EITHER: Final = (
    "What is my horse called?", "What is my sister called?", "What is my favourite film?", "What is my favourite city?",
    "Where was I born?", "What do I work as?", "What is my shoe size?", "What is the password?", "What was the code?",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A conversation whose last reply is judged: it must contain (or be) ``wanted``."""

    group: str
    said: tuple[str, ...]
    wanted: tuple[str, ...]
    exact: bool = False
    system: str | None = None

    def passed_by(self, reply: str) -> bool:
        """Whether the reply is right; without ``exact``, case does not matter."""
        if self.exact:
            return reply.strip() in self.wanted
        return any(_contains(reply.lower(), wanted.lower()) for wanted in self.wanted)


def questions(rng: Random) -> Iterator[Question]:
    """All questions of the exam."""
    yield Question("the promised one", ("My name is Zorvek", _ASK_NAME), ("Zorvek",))
    yield from _names(rng)
    yield from _wordings(rng)
    yield from _other_facts(rng)
    yield from _distances(rng, (5, 10, 20, 35))
    yield from _echoes(rng)
    yield from _never_told(rng, "never told", _NEVER_TOLD)
    yield from _talk()
    yield from _distances(rng, (1, 2))
    yield from _never_told_in_long(rng)
    yield from _additions(rng)
    yield from _never_told(rng, "never told, other questions", _NEVER_TOLD_EITHER)


def unseen_word(rng: Random) -> str:
    """A made-up lower-case word that training never used as a value."""
    while True:
        word = values.made_up_word(rng)
        if values.is_held_out(word) and len(word) >= 3:
            return word


def unseen_name(rng: Random) -> str:
    """The same, capitalised."""
    return unseen_word(rng).capitalize()


def _contains(reply: str, wanted: str) -> bool:
    """Whole words only: "Bo" is not in "about"."""
    start = reply.find(wanted)
    while start >= 0:
        around = reply[:start][-1:] + reply[start + len(wanted) :][:1]
        if not any(c.isalnum() for c in around):
            return True
        start = reply.find(wanted, start + 1)
    return False


def _names(rng: Random) -> Iterator[Question]:
    for _ in range(200):
        name = unseen_name(rng)
        yield Question("name, never seen", (f"My name is {name}.", _ASK_NAME), (name,))
    for name in exam_phrases.ODD_NAMES:
        for told in ("My name is {v}", "I'm {v}."):
            yield Question("name, odd", (told.replace("{v}", name), _ASK_NAME), (name,))
    for _ in range(40):
        name = unseen_word(rng)
        yield Question("name, carelessly typed", (f"hi im {name}", "whats my name"), (name,))
    for _ in range(60):
        name, system = unseen_name(rng), f"You look after the {unseen_word(rng)} of {unseen_name(rng)}, kindly."
        yield Question("name, unseen system prompt", (f"I am {name}", _ASK_NAME), (name,), system=system)
    for _ in range(40):
        first, second = unseen_name(rng), unseen_name(rng)
        said = (f"My name is {first}.", "Hello", f"Actually, my name is {second}.", _ASK_NAME)
        yield Question("name, changed", said, (second,))


def _wordings(rng: Random) -> Iterator[Question]:
    for wording in exam_phrases.INTRODUCTIONS:
        for _ in range(_PER_WORDING):
            name = unseen_name(rng)
            told = capitalised(wording).replace("{v}", name)
            yield Question("introduction, unseen wording", (told, _ASK_NAME), (name,))
    for wording in exam_phrases.NAME_QUESTIONS:
        for _ in range(_PER_WORDING):
            name = unseen_name(rng)
            said = (f"My name is {name}.", capitalised(wording) + "?")
            yield Question("name question, unseen wording", said, (name,))
    for wording in exam_phrases.FAVOURITE_QUESTIONS:
        for thing in ("colour", "food", "planet", "zebra", "gadget", "board game"):
            value = unseen_word(rng)
            asked = capitalised(wording).replace("{a}", thing) + "?"
            yield Question("favourite question, unseen wording", (f"My favourite {thing} is {value}.", asked), (value,))


def _other_facts(rng: Random) -> Iterator[Question]:
    for thing in ("colour", "food", "number", "animal", "gadget", "chess opening", "kind of soup", "wizard"):
        for _ in range(5):
            value = unseen_word(rng)
            told = (f"My favourite {thing} is {value}.", f"What is my favourite {thing}?")
            yield Question("favourite, never seen", told, (value,))
    for _ in range(40):
        value = str(rng.randrange(100, 1_000_000))
        told = (f"Remember the number {value}.", "What was the number?")
        yield Question("number to remember", told, (value,))
        told = (f"Please remember {value}", "What did I ask you to remember?")
        yield Question("note to remember", told, (value,))
        name, other = unseen_name(rng), unseen_name(rng)
        both = (f"My sister is called {other}.", f"My name is {name}.", "What is my sister called?")
        yield Question("two names told apart", both, (other,))


def _distances(rng: Random, distances: Sequence[int]) -> Iterator[Question]:
    for distance in distances:
        for _ in range(40):
            name = unseen_name(rng)
            said = (f"My name is {name}.", *_distractions(rng, distance), _ASK_NAME)
            yield Question(f"name, {distance} {'turn' if distance == 1 else 'turns'} ago", said, (name,))


def _distractions(rng: Random, count: int) -> list[str]:
    made = (
        lambda: f"My favourite {rng.choice(('colour', 'food', 'song', 'tree', 'city'))} is {unseen_word(rng)}.",
        lambda: f"My dog is called {unseen_name(rng)}.",
        lambda: f"Repeat: {unseen_word(rng)}",
        lambda: f"Remember the code {rng.randrange(10_000)}.",
        lambda: rng.choice(("Hello", "How are you?", "Thanks!", "What can you do?", "ok", "Who are you?")),
        lambda: rng.choice(("What is the capital of Peru?", "I like trains.", "Is it late?")),
    )
    return [rng.choice(made)() for _ in range(count)]


def _echoes(rng: Random) -> Iterator[Question]:
    for _ in range(100):
        word = unseen_word(rng)
        yield Question("echo, one word", (f"{rng.choice(('Say', 'Repeat:', 'Echo'))} {word}",), (word,), exact=True)
        several = " ".join(unseen_word(rng) for _ in range(rng.randint(2, 6)))
        asked = rng.choice(("Repeat after me: {v}", 'Say "{v}"', "Please repeat: {v}"))
        yield Question("echo, several words", (asked.replace("{v}", several),), (several,), exact=True)
    for sentence in ("The quick brown fox jumps over the lazy dog.", "my name is Bob", "Hello world!"):
        yield Question("echo, sentence", (f"Repeat: {sentence}",), (sentence,), exact=True)


def _never_told(rng: Random, group: str, asked: Sequence[str]) -> Iterator[Question]:
    for question in asked:
        for before in ((), ("Hello",), ("My brother is called Tom.", "Thanks"), ("My favourite food is soup.",)):
            yield Question(group, (*before, question), ("not told me",))
        said = (f"Say {unseen_word(rng)}", question)
        yield Question(group, said, ("not told me",))


def _never_told_in_long(rng: Random) -> Iterator[Question]:
    for asked in (_ASK_NAME, "What is my favourite animal?", "What is my cat called?", "Where do I live?"):
        for _ in range(10):
            yield Question("never told, 15 turns of other things", (*_distractions(rng, 15), asked), ("not told me",))


def _additions(rng: Random) -> Iterator[Question]:
    for wording in ("What is {a} plus {b}?", "{a} + {b}", "How much is {a} plus {b}?", "Add {a} and {b}."):
        for _ in range(25):
            a, b = rng.randint(0, 20), rng.randint(0, 20)
            asked = wording.replace("{a}", str(a)).replace("{b}", str(b))
            yield Question("addition, up to 20 each", (asked,), (f"{a} plus {b} is {a + b}.",))


def _talk() -> Iterator[Question]:
    table = {
        ("Hello there, good to see you", "Hi, anyone home?", "Hey hey"): ("hello", "wiring works"),
        ("So who are you exactly?", "And what are you?", "Tell me who you are"): ("tiny built-in model", "tiny demo"),
        ("What are you capable of?", "Tell me what you can do", "How can you be of help?"): ("remember what you",),
        ("Okay thanks a bunch", "Thank you kindly"): ("welcome",),
        ("Bye for now", "Ok, see you soon"): ("goodbye",),
        ("What is 7 plus 5?", "12 + 0"): ("12",),
        ("Count to 12",): ("1 2 3 4 5 6 7 8 9 10 11 12",),
        (
            "Who won the world cup in 1998?", "What is the boiling point of water?", "Prove Fermat's theorem",
            "Can you plan my trip to Iceland?", "Write a haiku about rust", "What is the tallest building?",
            "How do I bake sourdough?", "Is there life on Mars?", "Recommend a good laptop", "Who was Napoleon?",
            "What is my neighbour thinking?", "Debug this function for me", "Why is the sky blue?",
            "Which programming language is best?", "What is 17 times 23?", "Translate good morning into Latin",
        ): ("demo model", "I only add", "not told me"),
    }  # fmt: skip
    for sentences, wanted in table.items():
        for sentence in sentences:
            yield Question("small talk and unknown, unseen wording", (sentence,), wanted)
