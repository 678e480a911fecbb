"""What the log says: folds of its events, and the mappings that they work on. Pure."""
