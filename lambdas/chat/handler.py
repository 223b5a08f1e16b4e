"""The buffered door: API Gateway's HTTP API calls this."""

from lexora.entry.aws import create_handler

handler = create_handler()
