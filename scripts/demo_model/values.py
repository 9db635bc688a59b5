"""Open-class values: names, numbers and words, most of them made up on the spot.

Recall has to work for what was never seen in training, so the bulk of the values is random. An
eighth of all words is held out for the exam by a checksum, which is the same on every machine.
"""

import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from . import words

Value = Callable[[Random], str]


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONSETS: Final = _split(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n "
    "p pl pr qu r s sh sk sl sm sn sp st str t th tr v vl w x y z"
)
_VOWELS: Final = _split("a e i o u a e i o u ai au ee ei ia ie io oo ou y")
_CODAS: Final = _split("b ck d f g k l ll m n ng nd nt p r rk rn rt s sk ss st t th v x z n r l s")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_ALWAYS_HELD_OUT: Final = frozenset({"zorvek", "zorvan", "obrien", "rdd"})


def is_held_out(text: str) -> bool:
    """Whether a value is kept for the exam: by its letters, whatever their case."""
    letters = "".join(c for c in text.lower() if c.isalpha())
    return letters in _ALWAYS_HELD_OUT or (bool(letters) and zlib.crc32(letters.encode()) % 8 == 0)


def made_up_word(rng: Random) -> str:
    """A random lower-case word of one to three syllables, now and then of plain random letters."""
    if rng.random() < 0.12:
        return "".join(rng.choices(_LETTERS, k=rng.randint(2, 9)))
    syllables = rng.choices((1, 2, 3), (2, 6, 2))[0]
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    if rng.random() < 0.15:
        word = word.lstrip("bcdfghjklmnpqrstvwxyz") or word
    return word + (rng.choice(_CODAS) if rng.random() < 0.75 else "")


def number(rng: Random) -> str:
    """A number of one to six digits, two digits being the commonest."""
    digits = rng.choices((1, 2, 3, 4, 5, 6), (3, 4, 3, 4, 3, 3))[0]
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def _one_of(rng: Random, choices: Sequence[str]) -> str:
    return rng.choice(choices)


def made_up_name(rng: Random) -> str:
    """A made-up capitalised name."""
    return made_up_word(rng).capitalize()


def odd_name(rng: Random) -> str:
    """A name with digits, apostrophes, hyphens, inner capitals, titles or several parts."""
    first, second = made_up_name(rng), made_up_name(rng)
    letter = rng.choice(_LETTERS).upper()
    shapes: tuple[Callable[[], str], ...] = (
        lambda: f"{rng.choice(('O', 'D', 'L', letter))}'{first}",
        lambda: f"{first}-{second}",
        lambda: f"{rng.choice(('Mc', 'Mac', 'De', 'Le', 'Van'))}{first}",
        lambda: f"{first}{number(rng)}",
        lambda: f"{letter}{rng.randint(0, 9)}{rng.choice(_LETTERS).upper()}{rng.randint(0, 9)}",
        lambda: f"{letter}{rng.randint(0, 9)}{rng.choice(('', made_up_word(rng)))}",
        lambda: f"{letter}-{number(rng)}",
        first.upper,
        lambda: f"{first} {second}",
        lambda: f"{_one_of(rng, words.FIRST_NAMES)} {second}",
        lambda: f"{first} {letter}. {second}",
        lambda: f"{rng.choice(('Dr.', 'Mr.', 'Mrs.', 'Captain', 'Professor'))} {first}",
        lambda: f"{rng.choice(('van', 'de', 'von', 'el'))} {first}",
        lambda: f"{first.lower()}_{number(rng)}",
        lambda: rng.choice("ÄÖÜÉÈÇŁŠŽØÅÆÑÓÍĐ") + first.lower() + rng.choice("äöüéèñçłšžøåíóëïæễąę"),
    )
    return rng.choice(shapes)()


def _training_only(make: Value) -> Value:
    def draw(rng: Random) -> str:
        while is_held_out(value := make(rng)):
            pass
        return value

    return draw


def _person(rng: Random) -> str:
    kind = rng.choices(("made up", "real", "odd"), (55, 20, 25))[0]
    if kind == "made up":
        return made_up_name(rng)
    return _one_of(rng, words.FIRST_NAMES) if kind == "real" else odd_name(rng)


def _lowered_now_and_then(make: Value) -> Value:
    """People type names in lower case too."""

    def draw(rng: Random) -> str:
        value = make(rng)
        return value.lower() if rng.random() < 0.16 else value

    return draw


def _common_word(rng: Random) -> str:
    lists = (words.COLOURS, words.ANIMALS, words.FOODS, words.NOUNS, words.CITIES, words.FIRST_NAMES)
    return _one_of(rng, rng.choice(lists))


def _word(rng: Random) -> str:
    return made_up_word(rng) if rng.random() < 0.5 else _common_word(rng)


def _place(rng: Random) -> str:
    return made_up_name(rng) if rng.random() < 0.6 else _one_of(rng, words.CITIES)


def _job(rng: Random) -> str:
    title = made_up_word(rng) if rng.random() < 0.5 else _one_of(rng, words.JOBS)
    return f"{'an' if title[0] in 'aeiou' else 'a'} {title}"


def _anything(rng: Random) -> str:
    kind = rng.choices(("word", "number", "name", "two words"), (50, 25, 13, 12))[0]
    if kind == "number":
        return number(rng)
    if kind == "name":
        return _person(rng)
    return _word(rng) if kind == "word" else f"{rng.choice(words.ADJECTIVES)} {_word(rng)}"


person: Final = _lowered_now_and_then(_training_only(_person))
place: Final = _lowered_now_and_then(_training_only(_place))
word: Final = _training_only(_word)
job: Final = _training_only(_job)
anything: Final = _training_only(_anything)


def words_to_echo(rng: Random) -> str:
    """One to ten words to be repeated; single words are the commonest, being the hardest."""
    count = rng.choices((1, 2, 3, 4, 5, 7, 10), (38, 16, 14, 12, 10, 6, 4))[0]
    parts = [_echo_part(rng) for _ in range(count)]
    text = " ".join(parts)
    text = text.capitalize() if rng.random() < 0.2 else text
    return text + (rng.choice(".!?") if rng.random() < 0.15 else "")


def _echo_part(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.12:
        return number(rng)
    if kind < 0.35:
        return person(rng)
    return word(rng) if kind < 0.8 else rng.choice(words.ADJECTIVES)
