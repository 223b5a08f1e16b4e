"""How fast a Lambda is ready, and how large: `python -m bench.cold_start [--quick] [--rounds N]`.

Measures CPU seconds, not wall time: of processes that answer once over a DynamoDB on this machine, against processes
that only import the same packages, and against a peer. Exit codes are those of bench/run.py.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import msgspec

from bench import report
from bench.probe import STAGE
from bench.procs import BenchError, Cores, Procs, free_port
from bench.report import Outcome, Verdict
from bench.servers import HERE, ROOT
from lexora.adapters.dynamodb_versions import DynamoVersions
from lexora.core.versions import Version
from lexora.entry.prepared import SHIPPED, load_prepared

OURS = "lambdas.chat.handler"
PEER = "bench.peers.fastapi_handler"
# What runs on AWS; what is measured runs under this machine's Python.
PYTHON, ARCHITECTURE = "3.13", "arm64"

_Run = dict[str, Any]

_ACCESS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# As infra sets them. Nobody reads the bucket or a secret for a prepared answer.
_VARIABLES = {
    "LEXORA_ENVIRONMENT": "bench",
    "LEXORA_STAGE": STAGE,
    "ANSWERS_TABLE": "answers",
    "LIMITS_TABLE": "limits",
    "REQUESTS_TABLE": "requests",
    "CACHE_TABLE": "cache",
    "CONFIG_BUCKET": "config",
    "MODEL_MAP_KEY": "config/model_map.json",
    "SECRET_PREFIX": "/lexora/bench/",
    "ALLOW_ORIGINS": "*",
    "MESSAGE_TEXT": "true",
    "LOG_LEVEL": "INFO",
    "MAX_SECONDS": "24",
    "RECORD_TTL_DAYS": "30",
}
_KEYS = {
    "answers": {"prompt": "S", "variant": "N"},
    "requests": {"day": "S", "request_id": "S"},
    "limits": {"pk": "S", "sk": "S"},
}


def main() -> int:
    """Measure what the command line says. Returns the exit code."""
    arguments = _parser().parse_args()
    rounds, warm = (2, 20) if arguments.quick else (15, 200)
    rounds = arguments.rounds or rounds
    folder = Path(tempfile.mkdtemp(prefix="lexora-bench-"))
    try:
        outcomes = [cold_start(folder, arguments.python.absolute(), rounds, warm), size(folder / "zip")]
    except (BenchError, PermissionError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for outcome in outcomes:
        outcome.show()
    about = report.machine(HERE / "requirements-lambda.in")
    print(f"written to {os.path.relpath(report.write(outcomes, {'rounds': rounds, 'warm': warm}, about))}")
    return report.exit_code(outcomes)


def cold_start(folder: Path, python: Path, rounds: int, warm: int) -> Outcome:
    """First and further answers of ours and the peer, and bare imports, in turns. Raises BenchError."""
    if not python.exists():
        raise BenchError(f"there is no {python}: `make bench-lambda` installs it")
    available = sorted(os.sched_getaffinity(0))
    with Procs(Cores(gateway=available[0], load=available[-1]), folder) as procs:
        environment = {
            **_VARIABLES,
            **_ACCESS,
            "AWS_ENDPOINT_URL": _dynamodb(procs),
            "HOME": str(folder),  # the AWS SDK looks for its settings there
            "PATH": os.environ["PATH"],
        }

        def probe(*arguments: str, given: str = "") -> _Run:
            argv = ["taskset", "-c", str(procs.cores.gateway), str(python), "-m", "bench.probe", *arguments]
            return _probe(argv, environment, given)

        # The first run leaves .pyc files behind, and says what is imported.
        modules = "\n".join(probe("answer", OURS, "1")["modules"])
        probe("answer", PEER, "1")
        kinds: dict[str, Callable[[], _Run]] = {
            "ours": lambda: probe("answer", OURS, str(warm)),
            "imports": lambda: probe("imports", given=modules),
            "uncollected": lambda: probe("uncollected", given=modules),
            "peer": lambda: probe("answer", PEER, str(warm)),
        }
        runs = []
        for number in range(rounds):
            # Who goes first changes from round to round.
            turn = list(kinds)[number % len(kinds) :] + list(kinds)[: number % len(kinds)]
            found = {kind: kinds[kind]() for kind in turn}
            runs.append({kind: {name: found[kind].get(name) for name in ("cold", "warm")} for kind in kinds})
            print(
                f"  round {number + 1}: " + ", ".join(f"{kind} {found[kind]['cold']:.3f} s" for kind in kinds),
                flush=True,
            )
    return judged(runs)


def judged(runs: list[dict[str, _Run]]) -> Outcome:
    """The medians and verdicts of rounds: the CPU seconds (`cold`, `warm`) of what was started in each."""

    def median(value: Callable[[dict[str, _Run]], float]) -> float:
        return statistics.median(map(value, runs))

    def against(other: str) -> float:
        # Round by round, for neighbours in time have the machine in the same mood.
        return median(lambda run: run["ours"]["cold"] / run[other]["cold"])

    warm_ms = median(lambda run: run["ours"]["warm"]) * 1e3
    return Outcome(
        "cold start",
        runs,
        {
            "first answer, CPU s": median(lambda run: run["ours"]["cold"]),
            "bare imports and a client, CPU s": median(lambda run: run["imports"]["cold"]),
            "the same without garbage collection": median(lambda run: run["uncollected"]["cold"]),
            "first answer of FastAPI, CPU s": median(lambda run: run["peer"]["cold"]),
            "warm answer, CPU ms": warm_ms,
            "warm answer of FastAPI, CPU ms": median(lambda run: run["peer"]["warm"]) * 1e3,
        },
        [
            Verdict("first answer / bare imports and a client", against("imports"), "<=", 1.2),
            Verdict("the same, both without garbage collection", against("uncollected"), "<=", 1.2),
            Verdict("first answer / FastAPI's", against("peer"), "<", 1),
            Verdict("p50 of a warm answer's CPU", warm_ms, "<=", 5, " ms"),
        ],
    )


def size(folder: Path) -> Outcome:
    """The zip as it is deployed, unpacked in `folder`, in MB (10^6 bytes). Raises BenchError."""
    from infra.bundle import build  # the CDK takes its time

    try:
        build(folder, PYTHON, ARCHITECTURE)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"the zip cannot be built: {error}") from None
    parts = {path.name: sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / 1e6
             for path in folder.iterdir()}  # fmt: skip
    largest = sorted(parts, key=lambda name: -parts[name])[:5]
    return Outcome(
        "zip",
        [parts],
        {f"{name}, MB": parts[name] for name in largest},
        [Verdict("all of it, unpacked", sum(parts.values()), "<=", 20, " MB")],
    )


def _dynamodb(procs: Procs) -> str:
    """Starts an emulator whose answers table is filled. Returns its address."""
    port = free_port()
    settings = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        **{name: str(procs.folder) for name in ("HOME", "TMPDIR", "STATE_DIR", "S3_DATA_DIR")},
    }
    argv = ["env", *(f"{name}={value}" for name, value in settings.items())]
    argv += [sys.executable, "-c", "from ministack.app import main; main()"]
    url = f"http://127.0.0.1:{port}"
    procs.start("emulator", argv, procs.cores.load, f"{url}/_ministack/health")
    client = boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name=_ACCESS["AWS_REGION"],
        aws_access_key_id=_ACCESS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=_ACCESS["AWS_SECRET_ACCESS_KEY"],
    )
    for table, keys in _KEYS.items():
        client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
            KeySchema=[
                {"AttributeName": key, "KeyType": use} for key, use in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
        )
    shipped = msgspec.structs.replace(Version.of(*load_prepared(SHIPPED)), id="shipped")
    store = DynamoVersions(client, None, "answers", "limits", "")  # no S3: nobody asks for the version itself
    if begun := store.begin(shipped.id, 0, store.in_force()):
        store.finish(store.switch(shipped, begun))
    return url


def _probe(argv: list[str], environment: Mapping[str, str], given: str) -> _Run:
    ended = subprocess.run(argv, env=environment, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchError(f"{' '.join(argv)} failed:\n{ended.stderr[-2000:]}")
    figures: _Run = json.loads(ended.stdout.splitlines()[-1])
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How fast the Lambda is ready, and how large.")
    parser.add_argument("--quick", action="store_true", help="two rounds: shows what breaks")
    parser.add_argument("--rounds", type=int, help="how often everything is started (15)")
    parser.add_argument(
        "--python",
        type=Path,
        default=ROOT / ".venv-bench-lambda" / "bin" / "python",
        help="the interpreter that has what the functions have, and the peer's packages",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
