"""Times in words, as people say them: a small closed grammar, and nothing is guessed."""
