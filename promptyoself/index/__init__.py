"""The compact JSON index: what a chain's log says, folded, and the position that it reflects."""
