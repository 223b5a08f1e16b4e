"""What exists in the cloud, as a CDK application. Imports aws_cdk and its like, never `lexora`.

The CDK's libraries run in Node, which comes with the Python environment: it is put before any other in PATH, before
anything here imports them.
"""

import os
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
