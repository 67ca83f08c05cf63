"""``int8 recalibrate ENGINE``: a new engine of new data beside it, and a decision to read."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from artefacts.arguments import ArgumentParser
from artefacts.command import run_command
from artefacts.machine import print_every_character
from artefacts.texts import printable_json
from pipeline.flag_values import local_path
from pipeline.recalibration.asked import Asked
from pipeline.recalibration.decision import TAKE, Decision
from pipeline.recalibration.recalibrate import STEPS, recalibrate
from pipeline.screen import open_screen

__all__ = ["main", "parser"]

EPILOG = """examples:
  int8 recalibrate out/m.int8.engine --calib-data samples/       # what a recorder kept
  int8 recalibrate out/m.int8.engine --statistics production.stats.npz --eval-data labelled/

The engine and its files stay as they are; a new engine, out/m.v2.engine, and the decision
out/m.v2.decision.md lie beside it. Exit code 0: take the new one; 1: keep the old one, or it
cannot be told; 2: bad input.
"""


def parser(prog: str = "int8 recalibrate") -> argparse.ArgumentParser:
    """The argument parser."""
    root = ArgumentParser(
        prog=prog,
        description="Build an INT8 engine again with the ranges of new data, and compare the two.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.register("type", Path, local_path)
    root.add_argument("engine", type=Path, help="with the files of its build beside it")
    add = root.add_argument_group("data").add_argument
    add("--calib-data", type=Path, help="samples of production: the folder of a recorder, .npz, …")
    add("--statistics", type=Path, help="of production, *.stats.npz; ranges are taken from these")
    add(
        "--replace",
        action="store_true",
        help="leave out what the engine was calibrated with: where that was wrong (default: both "
        "together, so that nothing it was calibrated for is lost)",
    )
    add = root.add_argument_group("comparison").add_argument
    add(
        "--eval-data",
        type=Path,
        help="labelled samples to compare on; default: two fifths of --calib-data, against FP32",
    )
    add("--task", type=Path, help="task spec, YAML; default classification")
    add = root.add_argument_group("output").add_argument
    add("--output", type=Path, help="the new engine; default: m.int8.engine → m.v2.engine")
    add("--force", action="store_true", help="replace --output, if it is there")
    add("--quiet", action="store_true", help="print nothing but errors")
    add("--json", action="store_true", help="print the decision as JSON, nothing else")
    add("--verbose", action="store_true", help="also print the libraries' log")
    add("--debug", action="store_true", help="show the stack trace of an error")
    return root


def main(argv: Sequence[str] | None = None, prog: str = "int8 recalibrate") -> int:
    """Run the command; 0 take the new engine, 1 keep the old one or not told, 2 bad input."""
    print_every_character()
    words = list(sys.argv[1:] if argv is None else argv)
    given = vars(parser(prog).parse_args(words))
    shown = {name: given.pop(name) for name in ("quiet", "json", "verbose", "debug")}
    decision: Decision | None = None

    def command() -> int:
        nonlocal decision
        silent = shown["quiet"] or shown["json"]
        screen = open_screen(steps=STEPS, silent=silent, verbose=shown["verbose"])
        decision = recalibrate(Asked(**given), screen)
        return int(decision.verdict != TAKE)

    def tell(code: int, error: str | None) -> None:
        if shown["json"]:
            found = {} if decision is None else decision.to_dict()
            told = {"exit_code": code, "error": error, **found}
            sys.stdout.write(f"{printable_json(json.dumps(told, indent=2))}\n")

    interrupted = "interrupted; run the same command again to resume"
    return run_command(command, debug=shown["debug"], interrupted=interrupted, ended=tell)


if __name__ == "__main__":
    sys.exit(main())
