"""Desires: recorded, listed, and put into idle prompts."""
