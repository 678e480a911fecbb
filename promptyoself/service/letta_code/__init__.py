"""Letta Code on this machine: its program, an App Server that is kept running, and a skill."""
