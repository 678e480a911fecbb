"""A data directory, as use cases are handed it: chains, each with its index."""
