"""All stacks of one environment."""

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.api import ApiStack
from infra.data import DataStack
from infra.edge import EdgeStack
from infra.ops import OpsStack
from infra.settings import Settings


def add_stacks(app: cdk.App, settings: Settings) -> None:
    """Adds Data, Api, Edge and Ops to `app`, tagged, and has cdk-nag look at them at synth."""
    name = f"{settings.prefix.capitalize()}-{settings.environment}"
    data = DataStack(app, f"{name}-Data", settings)
    api = ApiStack(app, f"{name}-Api", settings, data)
    EdgeStack(app, f"{name}-Edge", settings, data, api)
    OpsStack(app, f"{name}-Ops", settings, api)
    cdk.Tags.of(app).add("lexora:environment", settings.environment)
    cdk.Tags.of(app).add("lexora:prefix", settings.prefix)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
