"""What stops a start."""


class ConfigError(Exception):
    """Something that whoever starts the gateway must mend; one line."""
