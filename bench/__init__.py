"""Benchmarks of the gateway, each against a peer in the same run: `python -m bench.run`."""
