"""Calibration, step by step: ``python -m calibrators COMMAND ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from artefacts.arguments import ArgumentParser
from artefacts.command import run_command, say
from calibrators import commands
from graphs.files import load_model
from quantization.commands import add_placement, placement_of

__all__ = ["main"]

_Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], str]]


def _add_observe(parser: argparse.ArgumentParser) -> None:
    commands.add_observe(parser)
    add_placement(parser)


def _observe(arguments: argparse.Namespace) -> str:
    """Run a prepared model over samples; keep statistics of what becomes INT8."""
    model = load_model(arguments.model)
    return commands.observe_on(arguments, model, placement_of(arguments, model).tensors)


COMMANDS: dict[str, _Command] = {
    "observe": (_add_observe, _observe),
    "merge": (commands.add_merge, commands.merge),
    "ranges": (commands.add_ranges, commands.ranges),
    "cache": (commands.add_cache, commands.cache),
    "show": (commands.add_show, commands.show),
}


def main(argv: Sequence[str] | None = None, prog: str = "python -m calibrators") -> int:
    """Run a command; 0 done, 2 bad input or environment."""
    arguments = parser(prog).parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    run = COMMANDS[arguments.command][1]
    return run_command(lambda: say(run(arguments)), debug=arguments.debug)


def parser(prog: str) -> argparse.ArgumentParser:
    """The argument parser, a subparser for each command."""
    root = ArgumentParser(prog=prog, description=__doc__)
    subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (configure, run) in COMMANDS.items():
        child = subparsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        configure(child)
        child.add_argument("--debug", action="store_true", help="show the trace of an error")
    return root


if __name__ == "__main__":
    sys.exit(main())
