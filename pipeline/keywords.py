"""The front door for Python: keywords become the same job that flags become."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artefacts.errors import InputError
from artefacts.litter import scratch_folder
from calibrators import Preprocess
from calibrators.samples.given import source_of
from pipeline.flag_values import local_path
from pipeline.flags import parser
from pipeline.job import Job
from pipeline.settle import settle_job

__all__ = ["job_of"]

SAMPLES = ("calib_data", "eval_data")
COMMANDS_OWN = ("dry_run", "quiet", "json", "debug")


@contextmanager
def job_of(onnx: str | Path, engine: str | Path, options: Mapping[str, Any]) -> Iterator[Job]:
    """The job of ``build``'s keywords; arrays live in a temporary file as long as it runs.

    Args:
        onnx: the model.
        engine: the engine to write.
        options: flags by their names with underscores.

    Raises:
        InputError: an option is unknown, or has a value that its flag does not take.
    """
    root = parser()
    # Parsed without the options: the defaults of the flags are the defaults of the keywords.
    given = vars(root.parse_args(["--onnx", str(onnx), "--engine", str(engine)]))
    known = given.keys() - COMMANDS_OWN
    actions = {action.dest: action for action in root._actions if action.dest in known}
    with scratch_folder("samples") as folder:
        for name, value in options.items():
            if name not in actions:
                raise InputError(
                    f"build() has no option {name!r}, expected one of "
                    f"{', '.join(sorted(set(actions) - {'onnx', 'engine'}))}; correct the name"
                )
            if name in SAMPLES:
                if isinstance(value, str):
                    value = _value(actions[name], value)
                given[name] = None if value is None else source_of(value, folder / name)
            elif name == "preprocess" and isinstance(value, Mapping):
                given[name] = Preprocess.from_dict(value)
            else:
                given[name] = _value(actions[name], value)
        yield settle_job(given)


def _value(action: argparse.Action, value: Any) -> Any:
    """What the flag would have become."""
    if value is None or isinstance(value, Preprocess):
        return value
    if isinstance(action, argparse._AppendAction):
        entries = [value] if isinstance(value, (str, Mapping)) else list(value)
        return [_converted(action, entry) for entry in entries]
    return _converted(action, value)


def _converted(action: argparse.Action, value: Any) -> Any:
    flag = action.option_strings[-1]
    if isinstance(value, Path):
        value = str(value)
    convert = local_path if action.type is Path else action.type
    if isinstance(action, argparse._StoreTrueAction) and not isinstance(value, bool):
        raise InputError(f"option {action.dest} is {value!r}, expected True or False; correct it")
    try:
        if callable(convert) and isinstance(value, (str, int, float)):
            # Through the flag's own parser, so that both doors take and refuse the same.
            value = convert(str(value))
    except (argparse.ArgumentTypeError, ValueError) as err:
        raise InputError(f"option {action.dest} ({flag}): {err}; correct it") from err
    if action.choices is not None and value not in action.choices:
        raise InputError(
            f"option {action.dest} is {value!r}, expected one of "
            f"{', '.join(map(str, action.choices))}; choose one"
        )
    return tuple(value) if isinstance(value, list) else value
