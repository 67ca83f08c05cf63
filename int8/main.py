"""``int8 SUBCOMMAND …``: finds the command and hands it the rest of the line."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from artefacts.colour import painted
from artefacts.command import dying_of_interrupts, run_command
from artefacts.machine import print_every_character
from int8 import __version__
from int8.subcommands import SUBCOMMANDS, Subcommand

__all__ = ["help_text", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 done, 1 a gate missed, 2 bad input or environment."""
    print_every_character()
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else ""
    if name in ("", "-h", "--help", "help"):
        print(help_text())
        return 0 if name else 2
    if name == "--version":
        print(f"int8 {__version__}")
        return 0
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print("usage: int8 SUBCOMMAND …; int8 --help lists all", file=sys.stderr)
        print(f"int8: error: no subcommand {name!r}{hint}", file=sys.stderr)
        return 2
    found = SUBCOMMANDS[name]
    return run_command(lambda: _call(found, words[1:]), debug="--debug" in words)


def _call(found: Subcommand, words: list[str]) -> int:
    rest = _with_files(found, words)
    with dying_of_interrupts():
        command = importlib.import_module(found.module)
    code: int = command.main([*found.given, *rest], prog=found.prog)
    return code


def _with_files(found: Subcommand, words: list[str]) -> list[str]:
    """One file of a build in front becomes the files that the subcommand wants of it."""
    front = [found.behind] if found.behind else []
    rest = words[len(front) :]
    alone = rest and not rest[0].startswith("-") and (len(rest) < 2 or rest[1].startswith("-"))
    if words[: len(front)] != front or not found.finds or not alone or "--ranges" in rest:
        return words
    path = Path(rest[0])
    if path.name.endswith(found.takes):
        return words
    family_module = importlib.import_module("pipeline.family")  # which loads onnx
    if not path.is_file() or not family_module.is_artefact(path):
        return words
    family = vars(family_module.family_of(path))
    return [*front, *(word.format(**family) for word in found.finds), *rest[1:]]


def help_text() -> str:
    """Every subcommand in its group, with an example."""
    lines = ["usage: int8 SUBCOMMAND …", "       int8 SUBCOMMAND --help | int8 --version"]
    group = ""
    for name, entry in sorted(SUBCOMMANDS.items(), key=lambda item: _GROUPS.index(item[1].group)):
        if entry.group != group:
            group = entry.group
            lines += ["", painted(group, "bold", sys.stdout)]
        lines += [f"  {name:<14} {entry.summary}", f"  {'':<14}   {entry.example}"]
    return "\n".join(lines)


_GROUPS = list(dict.fromkeys(entry.group for entry in SUBCOMMANDS.values()))
