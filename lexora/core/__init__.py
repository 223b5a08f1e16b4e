"""The rules: what a request is, where it goes, what it costs. No sockets, no environment, no wall clock."""
