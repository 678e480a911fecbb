"""A Broca on this machine: what is seen of its checkout, and the plugin that is written there."""
