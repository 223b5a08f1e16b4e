"""The `lexora` command; `python -m lexora.main` starts the same service with the config that LEXORA_CONFIG names."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lexora import __version__


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 2 if whoever called it must mend something."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    # Imported late, so that --help and --version answer at once.
    from lexora.entry.errors import ConfigError

    given = options.config or os.environ.get("LEXORA_CONFIG")
    config = Path(given) if given else None
    try:
        if options.command == "keys":
            from lexora.entry import keys

            with keys.local_keys(config, options.data, make=options.action == "create") as store:
                keys.run(options, store)
            return 0
        if options.command == "models":
            from lexora.entry import models

            models.run(options, config)
            return 0
        if options.command == "answers":
            from lexora.entry import answers

            options.config = config
            return answers.run(options)
        from lexora.entry.local import Options, reload, serve

        chosen = Options(config=config, data=options.data)
        if options.command == "reload":
            reload(chosen)
        else:
            serve(chosen._replace(host=options.host, port=options.port, model=options.model))
    except ConfigError as error:
        print(f"lexora: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough; Python must not find that out once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lexora", description="An LLM gateway that costs nothing while nobody asks.")
    parser.add_argument("--version", action="version", version=f"lexora {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="YAML config (default: $LEXORA_CONFIG, else none)")
    common.add_argument("--data", type=Path, metavar="DIR", help="where data lies (default: the config's, else ./data)")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    serve = commands.add_parser("serve", parents=[common], help="run the gateway")
    serve.add_argument("--host", help="address to listen on (default: the config's, else 127.0.0.1)")
    serve.add_argument("--port", type=_port, help="port to listen on (default: the config's, else 8001)")
    serve.add_argument("--model", type=Path, metavar="FILE", help="a GGUF model to run in llama.cpp")
    commands.add_parser(
        "reload", parents=[common], help="make the running gateway read its config and prepared answers again"
    )
    answers = commands.add_parser("answers", help="make, check and review prepared answers")
    if "answers" in arguments:  # its actions are imported only for whoever wants one
        from lexora.entry.answers import add_actions

        add_actions(answers, [common])
    add_key_actions(commands.add_parser("keys", help="make, list, revoke and replace API keys"), [common])
    _add_model_actions(commands.add_parser("models", help="load, unload, sleep and wake models on your own servers"))
    return parser


def _add_model_actions(parser: argparse.ArgumentParser) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="YAML config, which says where the gateway listens")
    common.add_argument("--url", help="the gateway's address instead, such as http://gpu-host:8001")
    common.add_argument("--json", action="store_true", help="as JSON")
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    actions.add_parser("list", parents=[common], help="whether the models of own servers are loaded, or sleep")
    for action, does in (
        ("load", "load a model, or a LoRA adapter"),
        ("unload", "unload it; its memory is free then"),
        ("sleep", "put the servers of a model to sleep once their requests are answered"),
        ("wake", "wake them"),
    ):
        one = actions.add_parser(action, parents=[common], help=does)
        one.add_argument("model", metavar="MODEL", help="as clients name it")
        if action == "load":
            one.add_argument("--path", help="where vLLM finds a LoRA adapter")
            one.add_argument("--parent", metavar="MODEL", help="the model whose server takes a new adapter")
        if action == "sleep":
            one.add_argument("--level", type=int, choices=(1, 2), help="how deep vLLM sleeps (default: 1)")


def add_key_actions(parser: argparse.ArgumentParser, parents: list[argparse.ArgumentParser]) -> None:
    """Gives `parser` what entry.keys.run does: create, list, revoke, rotate."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    create = actions.add_parser("create", parents=parents, help="make a key and print it, this once")
    create.add_argument("--user", required=True, metavar="NAME", help="whom its requests count for")
    create.add_argument("--name", default="", help="what it is for, for people to read")
    create.add_argument(
        "--model",
        action="append",
        metavar="PATTERN",
        help="a model it may use, such as gpt-*; repeatable (default: all)",
    )
    create.add_argument("--priority", choices=("high", "normal", "low"), default="normal", help="its place in queues")
    create.add_argument("--requests-per-minute", type=int, metavar="N")
    create.add_argument("--tokens-per-minute", type=int, metavar="N")
    create.add_argument("--usd-per-day", type=float, metavar="N")
    create.add_argument("--usd-per-month", type=float, metavar="N")
    create.add_argument("--expires-days", type=float, metavar="N", help="it ends after so many days")
    create.add_argument("--admin", action="store_true", help="it may use /admin")
    create.add_argument("--on-behalf", action="store_true", help="it may name a user by x_user_id")
    shown = actions.add_parser("list", parents=parents, help="every key, without its secret")
    shown.add_argument("--json", action="store_true", help="as JSON")
    actions.add_parser("revoke", parents=parents, help="end a key").add_argument("id", metavar="ID")
    rotate = actions.add_parser("rotate", parents=parents, help="make a new key with an old one's settings")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument(
        "--keep-hours", type=float, default=0, metavar="N", help="the old key goes on so long (default: 0)"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["serve"]))
