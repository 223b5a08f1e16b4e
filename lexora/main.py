"""The `lexora` command; `python -m lexora.main` starts the same service with the config that LEXORA_CONFIG names."""

import argparse
import os
import sys
from pathlib import Path

from lexora import __version__


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 2 if whoever called it must mend something."""
    options = _parser().parse_args(arguments)
    # Imported late, so that --help and --version answer at once.
    from lexora.entry.errors import ConfigError
    from lexora.entry.local import Options, reload, serve

    config = options.config or os.environ.get("LEXORA_CONFIG") or None
    chosen = Options(config=Path(config) if config else None, data=options.data)
    try:
        if options.command == "reload":
            reload(chosen)
        else:
            serve(chosen._replace(host=options.host, port=options.port, model=options.model))
    except ConfigError as error:
        print(f"lexora: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
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
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["serve"]))
