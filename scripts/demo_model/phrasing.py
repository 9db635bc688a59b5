"""How people say things: openers, endings and carelessness, composed with a core sentence."""

from collections.abc import Sequence
from random import Random
from typing import Final

from .exam_phrases import HELD_OUT_PATTERNS

_QUESTION_OPENERS: Final = (
    "so", "hey,", "ok,", "now,", "okay, now", "and", "well,", "tell me:", "tell me,", "hello,",
    "please tell me:", "quick question:", "one question:", "hi,", "alright,", "right,", "oh,",
    "just checking:", "I forgot:", "remind me:", "a test:", "then", "hm,", "sorry,", "by the way,",
)  # fmt: skip
_INDIRECT_OPENERS: Final = (
    "can you tell me", "do you know", "do you remember", "could you tell me", "please tell me",
    "tell me", "can you remember", "do you still know", "do you still remember", "remind me",
    "I want to know", "can you say", "have you forgotten", "did you note", "say", "can you recall",
    "I would like to know", "will you tell me", "do you happen to know", "let me know",
    "please remind me", "do you recall", "please say",
)  # fmt: skip
_QUESTION_ENDINGS: Final = (
    "again", "please", "now", "then", "by the way", "do you know", "do you remember", "exactly",
)  # fmt: skip
_STATEMENT_OPENERS: Final = (
    "hi,", "hello,", "hey,", "hi!", "hello!", "hey!", "hi there,", "good morning,", "well,", "so,",
    "ok,", "please note:", "by the way,", "just so you know,", "good evening,", "hello there!",
    "you should know that", "for the record,", "listen,", "note that", "FYI,", "oh,", "and",
    "actually,", "let me tell you:", "good day,", "greetings,", "yes,", "okay,", "now,",
)  # fmt: skip
_STATEMENT_ENDINGS: Final = (
    "by the way", "nice to meet you", "remember that", "please remember it", "please", "thanks",
    "how are you", "just so you know", "okay", "you know", "and who are you", "don't forget it",
)  # fmt: skip


_LOWER_CASE: Final = 0.22


def capitalised(text: str) -> str:
    """The text with a capital first letter and the rest as it is."""
    return text[:1].upper() + text[1:]


def question(rng: Random, direct: Sequence[str], indirect: Sequence[str] = ()) -> str:
    """A question composed from a core ("what is my name", or "what my name is" after an opener)."""
    while True:
        pattern = _question(rng, direct, indirect)
        if normalised(pattern) not in HELD_OUT_PATTERNS:
            return _careless(rng, pattern, "?")


def statement(rng: Random, cores: Sequence[str]) -> str:
    """A statement composed from a core such as "my name is {v}"."""
    while True:
        pattern = _dressed(rng, rng.choice(cores), _STATEMENT_OPENERS, _STATEMENT_ENDINGS, ",")
        if normalised(pattern) not in HELD_OUT_PATTERNS:
            return _careless(rng, pattern, ".")


def remark(rng: Random, cores: Sequence[str]) -> str:
    """A core that stands alone, such as a greeting; with nothing around it but punctuation."""
    return _careless(rng, rng.choice(cores), rng.choice((".", "", "!")))


def normalised(text: str) -> str:
    """The text without case, punctuation and doubled spaces, to compare patterns by."""
    kept = "".join(c for c in text.lower() if c.isalnum() or c in " {}'")
    return " ".join(kept.split())


def _question(rng: Random, direct: Sequence[str], indirect: Sequence[str]) -> str:
    if indirect and rng.random() < 0.4:
        opener = rng.choice(_INDIRECT_OPENERS)
        if rng.random() < 0.2:
            opener = f"{rng.choice(_QUESTION_OPENERS)} {opener}"
        return f"{opener} {rng.choice(indirect)}"
    return _dressed(rng, rng.choice(direct), _QUESTION_OPENERS, _QUESTION_ENDINGS, "")


def _dressed(rng: Random, core: str, openers: Sequence[str], endings: Sequence[str], joint: str) -> str:
    if rng.random() < 0.35:
        core = f"{rng.choice(openers)} {core}"
    if rng.random() < 0.12:
        core = f"{core}{rng.choice((',', joint))} {rng.choice(endings)}"
    return core


def _careless(rng: Random, pattern: str, stop: str) -> str:
    """Case and punctuation as people really type them; {slots} stay untouched."""
    style = rng.random()
    if rng.random() < (0.5 if style < _LOWER_CASE else 0.1):
        pattern = pattern.replace("'", "")
    if style < _LOWER_CASE:
        pattern = pattern.lower()
    elif style < 0.97:
        pattern = capitalised(pattern)
    else:
        pattern = "".join(c if inside else c.upper() for c, inside in _with_slots(pattern))
    ending = rng.choices((stop, "", "!", stop * 2, " " + stop), (70, 22, 6, 1, 1))[0]
    return (pattern + ending).strip()


def _with_slots(pattern: str) -> list[tuple[str, bool]]:
    """Each character with whether it belongs to a {slot}."""
    depth = 0
    marked = []
    for c in pattern:
        depth += c == "{"
        marked.append((c, depth > 0))
        depth -= c == "}"
    return marked
