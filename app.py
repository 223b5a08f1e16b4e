"""The CDK application: the stacks of one environment, chosen by context (`-c environment=prod`)."""

import os
import sys
from pathlib import Path

# Node comes with the Python environment: the CDK's libraries are written in it.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

import aws_cdk as cdk

from infra.application import add_stacks
from infra.settings import SettingsError, read_settings

app = cdk.App()
try:
    settings = read_settings(app.node.try_get_context, os.environ)
except SettingsError as error:
    sys.exit(f"lexora: {error}")
add_stacks(app, settings)
app.synth()
