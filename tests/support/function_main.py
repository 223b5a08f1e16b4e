"""The buffered door as the Lambda runtime runs it: events come in one by one, results go out.

A program of its own (`tests.support.cloud` starts it), for it sets the event loop and the log of its process. Its
arguments: the file descriptor for results, and constants to set before the function is imported, as JSON.
"""

import json
import os
import sys
from importlib import import_module


def main() -> None:
    for name, value in json.loads(sys.argv[2]).items():
        module, _, constant = name.rpartition(".")
        setattr(import_module(module), constant, value)
    handler = import_module("lambdas.chat.handler").handler
    with os.fdopen(int(sys.argv[1]), "w") as results:
        for line in sys.stdin:
            print(json.dumps(handler(json.loads(line), None)), file=results, flush=True)


if __name__ == "__main__":
    main()
