"""Where prompts go: what a delivery needs of a target, and each target in a folder of its own."""
