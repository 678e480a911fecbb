"""Notices: to which destinations what is told, in which words, and how it gets there."""
