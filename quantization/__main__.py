"""Tools for ONNX models on their way to INT8: ``python -m quantization COMMAND ...``."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence

from artefacts.errors import BuilderError
from quantization import commands
from quantization.commands import Command

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    "lint": Command(
        summary="say what TensorRT will refuse or run slowly; exit 1 where it would not build",
        configure=commands.add_lint,
        run=commands.run_lint,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 1 a gate missed, 2 bad input or environment."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        outcome = COMMANDS[arguments.command].run(arguments)
    except BuilderError as err:
        if arguments.debug:
            traceback.print_exc()
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    print(outcome.text)
    return outcome.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantization", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = subparsers.add_parser(name, help=command.summary, description=command.summary)
        command.configure(child)
        child.add_argument("--debug", action="store_true", help="show the trace of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
