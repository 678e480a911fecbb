"""What a use case is handed: the chains of a data directory, each with its index, as its caller may
see them."""
