"""All stacks of one environment."""

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.api import ApiStack
from infra.data import DataStack
from infra.edge import EdgeStack
from infra.ops import OpsStack
from infra.settings import read_settings


def build(environ: Mapping[str, str], context: Mapping[str, Any] | None = None, outdir: str | None = None) -> cdk.App:
    """The application with the stacks Data, Api, Edge and Ops, tagged; cdk-nag looks at them at synth.

    The CLI hands in `context` and `outdir` by the process's environment. Raises SettingsError.
    """
    app = cdk.App(context=context, outdir=outdir)
    settings = read_settings(app.node.try_get_context, environ)
    name = f"{settings.prefix.capitalize()}-{settings.environment}"
    data = DataStack(app, f"{name}-Data", settings)
    api = ApiStack(app, f"{name}-Api", settings, data)
    EdgeStack(app, f"{name}-Edge", settings, data, api)
    OpsStack(app, f"{name}-Ops", settings, api)
    cdk.Tags.of(app).add("lexora:environment", settings.environment)
    cdk.Tags.of(app).add("lexora:prefix", settings.prefix)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app
