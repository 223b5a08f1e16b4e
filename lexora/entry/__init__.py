"""The composition roots: the only readers of the environment, configuration files and the command line."""
