"""The manager of plugins, and the processor of the queue."""
