"""Seen by every Python function that the emulator runs: layers are at /opt, as on AWS, and a handler may be a script.

The emulator unpacks them elsewhere and says where. CDK's BucketDeployment starts /opt/awscli/aws, a Python program.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_layers = [Path(folder) for folder in os.environ.get("_LAMBDA_LAYERS_DIRS", "").split(os.pathsep) if folder]


class _Popen(subprocess.Popen):  # type: ignore[type-arg]
    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        program = str(args[0]) if isinstance(args, list | tuple) and args else ""
        if program.startswith("/opt/") and not Path(program).exists():
            unpacked = [layer / program.removeprefix("/opt/") for layer in _layers]
            args = next(([sys.executable, str(path), *args[1:]] for path in unpacked if path.exists()), args)
        super().__init__(args, *rest, **options)


if _layers:
    subprocess.Popen = _Popen  # type: ignore[misc]

if "AWS_LAMBDA_EXEC_WRAPPER" in os.environ:
    import web_adapter

    sys.meta_path.append(web_adapter.Scripts())
