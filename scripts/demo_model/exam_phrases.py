"""Phrases and values that the exam uses and the training never sees."""

from typing import Final

INTRODUCTIONS: Final = (
    "my name is {v} and I am new",
    "people call me {v}",
    "good afternoon, I'm {v}",
    "this is {v} speaking",
    "I go by {v}",
    "you may call me {v}",
    "the name is {v}",
    "allow me to introduce myself: {v}",
    "let me introduce myself, I'm {v}",
    "hey demo, my name's {v}",
    "please remember that my name is {v}",
    "hello model, I am called {v}",
)

NAME_QUESTIONS: Final = (
    "what did I tell you my name was",
    "which name did I give",
    "do you recall what my name is",
    "what am I called again",
    "what is it that I am called",
    "can you still tell my name",
    "tell me who I am please",
    "and my name was",
    "what do people call me",
    "who are you talking to",
    "say my name",
    "so what's my name then",
)

FAVOURITE_QUESTIONS: Final = (
    "what favourite {a} do I have",
    "and what was my favourite {a}",
    "which {a} do I like best",
    "do you recall my favourite {a}",
)

HELD_OUT_PATTERNS: Final = frozenset(
    phrase.replace(":", "").replace(",", "").lower()
    for phrase in (*INTRODUCTIONS, *NAME_QUESTIONS, *FAVOURITE_QUESTIONS)
)

ODD_NAMES: Final = (
    "O'Brien", "R2D2", "Jean-Luc", "McZorvan", "X Æ A-12", "Zoë", "Łukasz", "anna-lena", "D'Artagnan",
    "K9", "Mary Jane Watson", "Dr. Strangelove", "ZORVEK", "zorvek", "van Helsing", "user_42",
    "Neo42", "Bo", "Q", "Wolfeschlegelstein", "J. R. Tolkien", "T-800", "Nguyễn", "Sgt. Pepper",
)  # fmt: skip
