"""Implementations of the ports in `lexora.core.ports`. They never import each other."""
