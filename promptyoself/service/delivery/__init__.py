"""Delivering: the loop, its deliveries, and what it says of them."""
