"""What people see at a terminal: each answer of a command in a form that is made for eyes."""
