"""Schedules that a person has written in a file."""
