"""Notices: who is told of what agents answer, and of what fails. Pure."""
