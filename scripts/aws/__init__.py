"""How an environment on AWS is operated: `python -m scripts.aws --help`, or the Makefile's targets."""
