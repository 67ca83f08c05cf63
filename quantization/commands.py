"""What the subcommands of ``python -m quantization`` do: flags in, text and an exit code out."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantization.lint import lint
from quantization.lint_report import lint_json, lint_text
from quantization.load import load_model

__all__ = ["Command", "Outcome", "add_lint", "run_lint"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command prints and returns: 0 done, 1 a gate missed."""

    text: str
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """One subcommand.

    Attributes:
        summary: one line for ``--help``.
        configure: adds the command's flags to its parser.
        run: does it.
    """

    summary: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Outcome]


def add_lint(parser: ArgumentParser) -> None:
    """Flags of ``lint``."""
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="list every node")


def run_lint(arguments: Namespace) -> Outcome:
    """Exit code 1 where TensorRT would not build the model, or build something else."""
    findings = lint(load_model(arguments.model))
    name = str(arguments.model)
    if arguments.json:
        text = lint_json(name, findings)
    else:
        text = lint_text(name, findings, verbose=arguments.verbose)
    fatal = any(finding.severity == "fatal" for finding in findings)
    return Outcome(text=text, exit_code=int(fatal))
