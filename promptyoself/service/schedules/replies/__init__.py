"""What agents have answered: reading it from the log, and what a schedule asks to be kept of it."""
