"""What would happen: simulations, and the agenda of a day."""
