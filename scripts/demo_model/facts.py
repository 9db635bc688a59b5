"""What the model can be told and asked for again: kinds of facts, and how each is put."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from . import values, words

Slot = Callable[[Random], str]


@dataclass(frozen=True)
class FactKind:
    """One kind of fact. In every pattern {a} is the attribute ("favourite colour"), {v} the value.

    Where ``answer`` names the attribute, ``unknown`` begins as it does, up to there: whether it was told is easily
    decided at that word, which stood there when it was told, and hardly at the first, which has nothing to look for.
    """

    name: str
    weight: float
    attribute: Slot
    value: values.Value
    told: tuple[str, ...]
    acknowledged: str
    asked: tuple[str, ...]
    asked_indirectly: tuple[str, ...]
    answer: str
    unknown: str


@dataclass(frozen=True)
class Fact:
    """A fact of one dialogue."""

    kind: FactKind
    attribute: str
    value: str

    @property
    def key(self) -> tuple[str, str]:
        """What a later fact must share to replace this one."""
        return self.kind.name, british(self.attribute)

    def fill(self, pattern: str, attribute: str | None = None) -> str:
        """The pattern with this fact's attribute (or the asker's spelling of it) and value."""
        return pattern.replace("{a}", attribute or self.attribute).replace("{v}", self.value)


def american(text: str) -> str:
    """The text in American spelling, as far as it matters here."""
    return text.replace("favourite", "favorite").replace("colour", "color")


def british(text: str) -> str:
    """The inverse of ``american``."""
    return text.replace("favorite", "favourite").replace("color", "colour")


def draw_fact(rng: Random, kind: FactKind | None = None) -> Fact:
    """A random fact, of a random kind unless one is given."""
    chosen = kind or rng.choices(KINDS, [k.weight for k in KINDS])[0]
    attribute = chosen.attribute(rng)
    return Fact(chosen, attribute, chosen.value(rng))


def _nothing(rng: Random) -> str:
    del rng
    return ""


def _thing(rng: Random) -> str:
    common = rng.choice(words.THINGS)
    thing = common if rng.random() < 0.85 else values.word(rng).lower()
    return thing if rng.random() < 0.6 else american(thing)


def _favourite(rng: Random) -> str:
    thing = _thing(rng)
    return f"{'favorite' if 'color' in thing or rng.random() < 0.3 else 'favourite'} {thing}"


def _belonging(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(words.BELONGINGS)
    noun = rng.choice(words.NOUNS) if kind < 0.9 else values.word(rng).lower()
    return noun if rng.random() < 0.5 else f"{rng.choice(words.ADJECTIVES)} {noun}"


def _relative(rng: Random) -> str:
    return rng.choice(words.RELATIVES) if rng.random() < 0.8 else rng.choice(words.ANIMALS)


def _key(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(words.KEYS)
    noun = rng.choice(words.NOUNS)
    return noun if kind < 0.8 else f"{rng.choice(words.ADJECTIVES)} {noun}"


def _favourite_value(rng: Random) -> str:
    lists = (words.COLOURS, words.ANIMALS, words.FOODS, words.CITIES)
    return rng.choice(rng.choice(lists)) if rng.random() < 0.35 else values.anything(rng)


NAME: Final = FactKind(
    "name", 30, _nothing, values.person,
    ("my name is {v}", "my name is {v}", "I'm {v}", "I'm {v}", "I'm {v}", "I am {v}", "I am {v}",
     "call me {v}", "my name's {v}",
     "I am called {v}", "you can call me {v}", "please call me {v}", "everyone calls me {v}",
     "they call me {v}", "it's {v}", "this is {v}", "{v} is my name", "my first name is {v}",
     "name: {v}", "{v} here", "my friends call me {v}", "the name's {v}", "I'm called {v}",
     "my full name is {v}", "remember my name: {v}", "remember that my name is {v}",
     "remember that I am {v}", "I am {v}, who are you", "my name is {v}, what is yours",
     "I introduce myself: I am {v}", "my parents named me {v}", "I want to be called {v}",
     "my new name is {v}", "my name is not important, but it is {v}", "just call me {v}",
     "people know me as {v}", "my name will be {v}", "it is me, {v}", "let's say my name is {v}",
     "I am known as {v}", "you are talking to {v}", "may I introduce myself: my name is {v}"),
    "Nice to meet you, {v}.",
    ("what is my name", "what is my name", "what's my name", "who am I", "what am I called",
     "what was my name", "what is the name I told you", "how am I called", "which name is mine",
     "what did I say my name was", "what name did I give you", "what is my first name",
     "and my name", "my name", "what should you call me", "how do you call me",
     "what do you call me", "what did I say my name is", "did I tell you my name",
     "what did I call myself", "who is talking to you", "with whom do you speak",
     "what name do I have", "what is my name, do you remember", "my name is", "who was I", "what do you know about me"),
    ("what my name is", "my name", "who I am", "what I am called", "what my name was",
     "the name I gave you", "my first name", "what I told you about my name", "how I am called",
     "what to call me", "who is talking to you", "the name that I told you"),
    "Your name is {v}.",
    "Your name? You have not told me.",
)  # fmt: skip

FAVOURITE: Final = FactKind(
    "favourite", 22, _favourite, _favourite_value,
    ("my {a} is {v}", "my {a} is {v}", "{v} is my {a}", "I have a {a}: {v}", "my {a} has always been {v}",
     "remember that my {a} is {v}", "as for my {a}, it is {v}", "my {a}: {v}", "my {a} would be {v}",
     "please remember my {a}: {v}", "I think my {a} is {v}", "my {a} is now {v}"),
    "I will remember that your {a} is {v}.",
    ("what is my {a}", "what is my {a}", "what's my {a}", "what was my {a}", "which is my {a}",
     "what did I say my {a} was", "what did I say my {a} is", "and my {a}", "my {a}",
     "did I tell you my {a}", "which {a} did I tell you", "what {a} did I mention",
     "which {a} do I like most", "what {a} do I prefer", "which {a} do I love", "what {a} do I like"),
    ("my {a}", "what my {a} is", "what my {a} was", "which is my {a}", "the {a} that I told you"),
    "Your {a} is {v}.",
    "Your {a}? You have not told me.",
)  # fmt: skip

BELONGING: Final = FactKind(
    "my", 16, _belonging, values.anything,
    ("my {a} is {v}", "my {a} is {v}", "remember that my {a} is {v}", "{v} is my {a}", "my {a}: {v}",
     "please note my {a}: {v}", "my {a} is now {v}", "remember my {a}: {v}", "I set my {a} to {v}"),
    "I will remember that your {a} is {v}.",
    ("what is my {a}", "what's my {a}", "what was my {a}", "what did I say my {a} was", "and my {a}",
     "my {a}", "which {a} did I tell you", "did I tell you my {a}", "which is my {a}"),
    ("my {a}", "what my {a} is", "what my {a} was", "the {a} that I told you"),
    "Your {a} is {v}.",
    "Your {a}? You have not told me.",
)  # fmt: skip

RELATIVE: Final = FactKind(
    "relative", 8, _relative, values.person,
    ("my {a} is called {v}", "my {a}'s name is {v}", "I have a {a} called {v}", "my {a} is named {v}",
     "the name of my {a} is {v}", "I have a {a}, {v}", "I call my {a} {v}", "I have a {a} named {v}"),
    "I will remember that your {a} is called {v}.",
    ("what is my {a} called", "what is my {a}'s name", "what's my {a}'s name", "who is my {a}",
     "what is the name of my {a}", "how is my {a} called", "what's the name of my {a}",
     "what do I call my {a}", "what was my {a} called", "what was my {a}'s name"),
    ("what my {a} is called", "the name of my {a}", "my {a}'s name", "who my {a} is"),
    "Your {a} is called {v}.",
    "Your {a}? You have not told me.",
)  # fmt: skip

PLACE: Final = FactKind(
    "place", 4, _nothing, values.place,
    ("I live in {v}", "I am living in {v}", "my home is in {v}", "I moved to {v}", "I live near {v}",
     "I've lived in {v} for years", "we live in {v}"),
    "I will remember that you live in {v}.",
    ("where do I live", "where is my home", "in which place do I live", "where did I say I live",
     "which city do I live in", "what city do I live in"),
    ("where I live", "where my home is", "in which city I live"),
    "You live in {v}.",
    "I do not know where you live: you have not told me.",
)  # fmt: skip

ORIGIN: Final = FactKind(
    "origin", 3, _nothing, values.place,
    ("I am from {v}", "I'm from {v}", "I come from {v}", "I was born in {v}", "I grew up in {v}"),
    "I will remember that you are from {v}.",
    ("where am I from", "where do I come from", "where was I born", "where did I grow up"),
    ("where I am from", "where I come from", "where I was born"),
    "You are from {v}.",
    "I do not know where you are from: you have not told me.",
)  # fmt: skip

AGE: Final = FactKind(
    "age", 4, _nothing, lambda rng: str(rng.randrange(3, 110)),
    ("I am {v} years old", "I'm {v} years old", "my age is {v}",
     "I turned {v} today", "I am {v} years of age"),
    "I will remember that you are {v} years old.",
    ("how old am I", "what is my age", "what's my age", "how old did I say I am"),
    ("how old I am", "my age", "what my age is"),
    "You are {v} years old.",
    "I do not know how old you are: you have not told me.",
)  # fmt: skip

JOB: Final = FactKind(
    "job", 3, _nothing, values.job,
    ("I work as {v}", "I'm working as {v}", "I earn my money as {v}"),
    "I will remember that you work as {v}.",
    ("what do I work as", "what is my work", "what do I do for a living", "what kind of work do I do"),
    ("what I work as", "what I do for a living", "what my work is"),
    "You work as {v}.",
    "I do not know what you work as: you have not told me.",
)  # fmt: skip

LIKING: Final = FactKind(
    "liking", 4, _nothing, values.word,
    ("I like {v}", "I love {v}", "I really like {v}", "I like {v} very much", "what I like is {v}"),
    "I will remember that you like {v}.",
    ("what do I like", "what do I love", "what is it that I like", "what did I say I like"),
    ("what I like", "what I love"),
    "You like {v}.",
    "I do not know what you like: you have not told me.",
)  # fmt: skip

KEY: Final = FactKind(
    "the", 14, _key, values.anything,
    ("the {a} is {v}", "the {a} is {v}", "remember that the {a} is {v}", "remember the {a}: {v}",
     "remember the {a} {v}", "please remember the {a} {v}", "the {a} will be {v}", "{v} is the {a}",
     "remember this {a}: {v}", "please keep in mind that the {a} is {v}", "the {a}: {v}",
     "keep the {a} {v} in mind", "here is the {a}: {v}", "do not forget the {a}: {v}"),
    "I will remember that the {a} is {v}.",
    ("what is the {a}", "what's the {a}", "what was the {a}", "what {a} did I tell you", "the {a}",
     "which {a} should you remember", "what {a} did I ask you to remember", "what is the {a} again",
     "which {a} did I give you", "what did I say the {a} was", "and the {a}",
     "which {a} do you remember"),
    ("the {a}", "what the {a} is", "what the {a} was", "which {a} I told you"),
    "The {a} is {v}.",
    "The {a}? You have not told me.",
)  # fmt: skip

NOTE: Final = FactKind(
    "note", 8, _nothing, values.anything,
    ("remember {v}", "remember: {v}", "remember this: {v}", "please remember {v}", "keep in mind: {v}",
     "can you remember {v}", "memorise {v}", "don't forget {v}", "please remember this: {v}",
     "store this: {v}", "save {v}", "note: {v}", "you must remember {v}"),
    "I will remember: {v}.",
    ("what did I ask you to remember", "what should you remember", "what do you remember",
     "what did I tell you to remember", "what must you remember", "what did you remember",
     "what have you noted", "what have you stored", "what should you not forget",
     "what did you have to remember", "what was it that you should remember"),
    ("what you should remember", "what I asked you to remember", "what I told you to remember"),
    "You asked me to remember: {v}.",
    "I do not remember anything: you have not asked me to.",
)  # fmt: skip

KINDS: Final = (
    NAME, FAVOURITE, BELONGING, RELATIVE, PLACE, ORIGIN, AGE, JOB, LIKING, KEY, NOTE,
)  # fmt: skip
