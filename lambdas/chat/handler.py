"""The buffered door: API Gateway's HTTP API calls this."""

import gc

gc.disable()  # what is imported stays: looking for garbage in it would take a tenth of a cold start

from lexora.entry.aws import create_handler  # noqa: E402

handler = create_handler()
gc.freeze()
gc.enable()
