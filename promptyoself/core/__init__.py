"""What everything stands on: errors, times, ids, settings and files.

It knows nothing of schedules.
"""
