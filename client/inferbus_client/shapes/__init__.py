"""Others' shapes of what is asked and answered: their bodies as the options of `ask`, our answers as theirs. Pure."""
