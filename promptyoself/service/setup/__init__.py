"""Setting up an installation: the file of settings, a service that runs the loop, completion."""
