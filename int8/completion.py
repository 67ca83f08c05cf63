"""``int8 completion SHELL``: a script by which a shell completes subcommands, flags and choices.

Written by shtab from the parsers that the commands themselves use.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from artefacts.arguments import ArgumentParser
from artefacts.libraries import require
from int8.subcommands import SUBCOMMANDS, Subcommand

__all__ = ["main", "parser"]


def main(argv: Sequence[str] | None = None, prog: str = "int8 completion") -> int:
    """Print the script.

    Raises:
        MissingLibraryError: shtab is not installed, which this project asks for.
    """
    shell = parser(prog).parse_args(argv).shell
    shtab = require("shtab", extra="cpu")
    root = argparse.ArgumentParser(prog="int8")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    for name, entry in SUBCOMMANDS.items():
        flags = [_parser_of(name, entry)] if entry.flags != "" else []
        added = commands.add_parser(name, parents=flags, add_help=False, help=entry.summary)
        _complete_files(added, shtab.FILE)
    print(shtab.complete(root, shell))
    return 0


def parser(prog: str) -> ArgumentParser:
    """The argument parser."""
    root = ArgumentParser(prog=prog, description=__doc__)
    root.add_argument("shell", choices=("bash", "zsh"))
    return root


def _parser_of(name: str, entry: Subcommand) -> argparse.ArgumentParser:
    """The parser behind a subcommand: its module's, or the part that ``given`` chooses."""
    root: argparse.ArgumentParser = importlib.import_module(entry.flags or entry.module).parser(
        entry.prog
    )
    return _parts(root)[name] if entry.given else root


def _parts(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Subparsers by name."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _complete_files(root: argparse.ArgumentParser, files: object) -> None:
    """Offer files for every value that is not one of a few words."""
    for action in root._actions:
        if action.nargs != 0 and action.choices is None:
            action.complete = files  # type: ignore[attr-defined] # what shtab reads
    for part in _parts(root).values():
        _complete_files(part, files)
