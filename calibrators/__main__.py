"""Tools for what calibration leaves behind: ``python -m calibrators COMMAND ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from artefacts.command import run_command, say
from calibrators import commands

__all__ = ["main"]

_Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], str]]

COMMANDS: dict[str, _Command] = {
    "merge": (commands.add_merge, commands.merge),
    "ranges": (commands.add_ranges, commands.ranges),
    "cache": (commands.add_cache, commands.cache),
    "show": (commands.add_show, commands.show),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 done, 2 bad input or environment."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    run = COMMANDS[arguments.command][1]
    return run_command(lambda: say(run(arguments)), debug=arguments.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m calibrators", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (configure, run) in COMMANDS.items():
        child = subparsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        configure(child)
        child.add_argument("--debug", action="store_true", help="show the trace of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
