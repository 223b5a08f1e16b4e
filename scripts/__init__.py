"""What people and CI run around the gateway; the Makefile's targets call it."""
