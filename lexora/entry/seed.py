"""What a deployment brings into a new environment: a first model map."""

import os

import boto3

from lexora.adapters.s3 import S3Object
from lexora.entry.prepared import SHIPPED

# The zip's folder, or a checkout.
ROOT = SHIPPED.parent


def seed() -> None:
    """Puts the default model map where there is none; one that is there is an operator's, and is left alone.

    Reads CONFIG_BUCKET and MODEL_MAP_KEY from the environment. Raises OSError, and KeyError for a variable that is not
    set.
    """
    in_zip = ROOT / "model_map.json"
    model_map = in_zip if in_zip.exists() else ROOT / "infra" / "model_map.json"
    config = S3Object(boto3.client("s3"), os.environ["CONFIG_BUCKET"], os.environ["MODEL_MAP_KEY"])
    config.put_if_absent(model_map.read_bytes())
