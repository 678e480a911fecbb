"""What follows from the state: when schedules fire, what is claimed, skipped and refused. Pure."""
