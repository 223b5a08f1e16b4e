"""The CDK application: the stacks of one environment, chosen by context (`-c environment=prod`)."""

import os
import sys

from infra.application import build
from infra.settings import SettingsError

try:
    app = build(os.environ)
except SettingsError as error:
    sys.exit(f"lexora: {error}")
app.synth()
