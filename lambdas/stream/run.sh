#!/bin/sh
# The streaming door: the Lambda Web Adapter starts this and forwards to the port in AWS_LWA_PORT.
cd "$(dirname "$0")/../.." || exit 1
# The runtime's own folder holds botocore.
PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}${LAMBDA_RUNTIME_DIR:-/var/runtime}" exec python3 -u -m lexora.entry.aws
