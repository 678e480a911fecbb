"""Schedules out of one data directory, and into another."""
