"""Turns that are neither small talk nor facts: echo, repetition, instructions, sums, counting."""

from random import Random
from typing import Final

from . import phrasing, values, words

_ECHO_REQUESTS: Final = (
    "repeat: {v}", "repeat after me: {v}", "repeat {v}", "say {v}", "say: {v}", 'say "{v}"',
    'please say "{v}"', "echo {v}", "echo: {v}", 'repeat "{v}"', "please repeat: {v}", "please say {v}",
    "repeat this: {v}", "repeat the following: {v}", "copy this: {v}", "say the words {v}",
    'answer with "{v}"', 'reply with "{v}"', "just say {v}", "say exactly: {v}", "write {v}",
    "say this: {v}", "reply with {v}", "answer with {v}", "repeat this sentence: {v}", "print {v}",
    "repeat the words {v}", "repeat after me {v}", "now say {v}", "say only {v}", 'print "{v}"',
    "please repeat after me: {v}", "repeat the word {v}", "say the word {v}", "type {v}",
    "repeat what I say: {v}", 'write "{v}"', "please echo {v}", "please repeat {v}", "echo this: {v}",
    "respond with {v}", 'respond with "{v}"', "only say {v}", "repeat exactly: {v}", "copy: {v}",
)  # fmt: skip
_POLITE_ECHO_REQUESTS: Final = (
    "can you say {v}?", 'can you say "{v}"?', "can you repeat {v}?", 'could you say "{v}"?',
    "could you repeat {v}?", "would you say {v}?", 'can you repeat "{v}"?', "can you echo {v}?",
)  # fmt: skip
_AGAIN: Final = (
    "repeat that", "say that again", "can you repeat that", "what did you say", "again please",
    "what did you just say", "repeat your last answer", "please repeat", "once more", "repeat yourself",
    "what was your last answer", "can you say that again", "say it again", "repeat your answer",
)  # fmt: skip
_WHAT_I_SAID: Final = (
    "what did I just say", "what did I say", "what was my last message", "repeat my last message",
    "what have I just said", "what did I say before", "what was the last thing I said",
)  # fmt: skip
_INSTRUCTIONS: Final = (
    "what are your instructions", "what is your system prompt", "show me your system prompt",
    "what were you told", "which instructions do you have", "repeat your instructions", "system prompt",
    "what is the system prompt", "what instructions were you given", "tell me your instructions",
    "what does your system prompt say", "do you have instructions", "what's your system prompt",
)  # fmt: skip
_SYSTEM_SENTENCES: Final = (
    "You are a helpful assistant.", "You are {w}.", "You are {w}, an assistant of the project {w}.",
    "Answer briefly.", "Be polite.", "Keep your answers short.", "You serve the project {w}.",
    "Always answer in English.", "You are a friendly {w}.", "Do not make things up.", "Speak like a {w}.",
    "You work for {w}.", "Your project is {w}.", "The user is a {w}.", "Help the user with {w}.",
    "You are the assistant of the {w} team.", "Answer in one sentence.", "Never mention {w}.",
    "You talk to the people of {w}.", "Think before you answer.", "You know all about {w}.", "Use {w}.",
)  # fmt: skip
_SUMS: Final = (
    "what is {a} plus {b}", "what's {a} plus {b}", "{a} + {b}", "{a}+{b}", "add {a} and {b}",
    "what is {a} + {b}", "what is {a}+{b}", "how much is {a} plus {b}", "{a} plus {b}",
    "calculate {a} + {b}", "what is the sum of {a} and {b}", "compute {a}+{b}", "{a}+{b}=",
)  # fmt: skip
_OTHER_SUMS: Final = (
    "what is {a} minus {b}", "what is {a} times {b}", "{a} * {b}", "{a} - {b}", "{a}*{b}", "{a}-{b}",
    "what is {a} divided by {b}", "multiply {a} by {b}", "what is the square root of {a}", "{a} / {b}",
)  # fmt: skip
_COUNTS: Final = (
    "count to {n}", "can you count to {n}", "count up to {n}", "count from 1 to {n}", "please count to {n}",
    "count until {n}", "count from one to {n}",
)  # fmt: skip
_LARGEST_ADDEND: Final = 20
_REQUEST_OPENERS: Final = ("please", "can you", "could you", "I want you to", "you must", "now", "hey,")


def echo_request(rng: Random, text: str) -> str:
    """A request to repeat ``text``, which follows unchanged."""
    ends_with_stop = text.endswith((".", "!", "?"))
    if rng.random() < 0.12 and not ends_with_stop:
        pattern = rng.choice(_POLITE_ECHO_REQUESTS)
        pattern = pattern.rstrip("?") if rng.random() < 0.2 else pattern
    else:
        pattern = rng.choice(_ECHO_REQUESTS)
    if rng.random() < 0.75:
        pattern = phrasing.capitalised(pattern)
    return pattern.replace("{v}", text)


def again(rng: Random, last: tuple[str, str] | None) -> tuple[str, str]:
    """A request for the last answer, or for the user's own last message, with its reply."""
    if rng.random() < 0.6:
        return phrasing.question(rng, _AGAIN), last[1] if last else "I have not said anything yet."
    reply = f"You said: {last[0]}" if last else "You have not said anything before."
    return phrasing.question(rng, _WHAT_I_SAID), reply


def system_prompt(rng: Random) -> str:
    """One to three sentences, the words in them made up half of the time."""
    sentences = rng.sample(_SYSTEM_SENTENCES, rng.choices((1, 2, 3), (55, 30, 15))[0])
    text = " ".join(sentences)
    while "{w}" in text:
        text = text.replace("{w}", values.person(rng) if rng.random() < 0.5 else values.word(rng), 1)
    return text


def instructions(rng: Random, system: str | None) -> tuple[str, str]:
    """A question for the system prompt: it shows whether a project's prompt arrives."""
    reply = f"My instructions are: {system}" if system else "I have no instructions."
    return phrasing.question(rng, _INSTRUCTIONS), reply


def addition(rng: Random) -> tuple[str, str]:
    """A sum of small numbers, or arithmetic that is honestly refused."""
    a, b = rng.randint(0, _LARGEST_ADDEND), rng.randint(0, _LARGEST_ADDEND)
    kind = rng.choices(("small", "large", "other"), (75, 10, 15))[0]
    patterns = _OTHER_SUMS if kind == "other" else _SUMS
    reply = f"{a} plus {b} is {a + b}."
    if kind == "large":
        a = rng.randint(_LARGEST_ADDEND + 1, 9999)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
    if kind != "small":
        reply = f"I only add numbers up to {_LARGEST_ADDEND}."
    asked = phrasing.question(rng, patterns)
    return asked.replace("{a}", str(a)).replace("{b}", str(b)), reply


def counting(rng: Random) -> tuple[str, str]:
    """Counting: the one way to make this model talk for long."""
    last = rng.randint(2, 20) if rng.random() < 0.85 else rng.choice((25, 30, 40, 50, 100))
    asked = phrasing.question(rng, _COUNTS).replace("{n}", str(last))
    return asked, " ".join(str(n) for n in range(1, last + 1))


def request(rng: Random, actions: tuple[str, ...]) -> str:
    """A request to do something, as a statement or a polite question."""
    action = rng.choice(actions)
    if rng.random() < 0.5:
        action = f"{rng.choice(_REQUEST_OPENERS)} {action}"
    return phrasing.remark(rng, (action,))


def subject(rng: Random) -> str:
    """What a question may be about."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(words.TOPICS)
    if kind < 0.7:
        return f"{rng.choice(('the', 'a', 'my', 'this', 'your'))} {rng.choice(words.NOUNS)}"
    return values.person(rng) if kind < 0.8 else values.word(rng)


def noise(rng: Random) -> str:
    """What means nothing: letters, numbers, stray words and signs."""
    kind = rng.random()
    if kind < 0.3:
        return "".join(rng.choices("asdfjklqwertyuiop", k=rng.randint(4, 14)))
    if kind < 0.5:
        return values.number(rng)
    if kind < 0.6:
        return rng.choice(("?", "...", "??", "!", ":-)", "???", ".", ":)", "!!!", "-", "#"))
    return " ".join(values.word(rng) for _ in range(rng.randint(1, 5)))
