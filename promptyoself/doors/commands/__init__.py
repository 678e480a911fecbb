"""The commands by subject: arguments in, a service called, JSON out."""
