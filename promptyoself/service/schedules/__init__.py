"""Schedules: registered, changed, approved, looked at."""
