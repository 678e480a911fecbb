"""Answering for every slot, and for every change."""
