"""What can happen: the records of the log, with their names and versions."""
