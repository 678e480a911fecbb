"""The use cases, by subject. The doors (command line, loop) call these and nothing below them."""
