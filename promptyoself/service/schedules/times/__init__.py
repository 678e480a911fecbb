"""When schedules fire: what is asked for, what was understood, and the fires to come; and what
comes again after a clock that was ahead."""
