"""The parser of every command: a mistake gets one line of usage and one sentence."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import NoReturn

__all__ = ["ArgumentParser"]

UNKNOWN = "unrecognized arguments: "


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, but an error points to ``--help`` instead of listing every flag."""

    def error(self, message: str) -> NoReturn:
        """Print one line of usage and the error, the nearest flag named; exit with 2."""
        needed = " ".join(_shown(action) for action in self._actions if action.required)
        usage = " ".join(f"{self.prog} {needed}".split())
        sys.stderr.write(f"usage: {usage} …; {self.prog} --help lists all\n")
        self.exit(2, f"{self.prog}: error: {message}{self._nearest(message)}\n")

    def _nearest(self, message: str) -> str:
        """``; did you mean --calib-data?`` for a flag that is nearly one of ours."""
        word = message.removeprefix(UNKNOWN).partition(" ")[0].partition("=")[0]
        if not (message.startswith(UNKNOWN) and word.startswith("--")):
            return ""
        near = difflib.get_close_matches(word, self._option_string_actions, n=1, cutoff=0.7)
        return f"; did you mean {near[0]}?" if near else ""


def _shown(action: argparse.Action) -> str:
    """A required argument as usage shows it."""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return f"{action.option_strings[0]} {metavar}" if action.option_strings else metavar
