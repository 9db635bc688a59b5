"""The recipe of Inferbus's built-in demo model: its dialogues, its tokenizer, its training, its exam.

Run it with ``scripts/train-demo-model``. The model is trained from scratch on nothing but the
dialogues that this package generates; see ``dialogue.py`` for what it is taught to do.
"""
