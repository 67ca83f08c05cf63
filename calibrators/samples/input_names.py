"""Which array of a data source feeds which input of a model, by their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from artefacts.errors import DataError
from calibrators.preprocessing.preprocess import Preprocess
from calibrators.samples.labels import LABEL_ARRAYS
from calibrators.samples.samples import InputSpec

__all__ = ["check_preprocess", "image_input", "match_names"]

_SINGLE = ("images", "image", "x", "X", "data", "inputs", "input", "features", "samples", "arr_0")


def check_preprocess(preprocess: Preprocess, inputs: Sequence[InputSpec]) -> None:
    """Refuse a spec that names inputs which the model does not have.

    Raises:
        DataError: such a name, with the model's.
    """
    names = [spec.name for spec in inputs]
    for name in (*preprocess.inputs, *([preprocess.input] if preprocess.input else [])):
        if name not in names:
            raise DataError(
                f"preprocessing spec names input {name}, expected {_listed(names)} of the model; "
                f"{_near(name, names)}"
            )


def image_input(preprocess: Preprocess | None, inputs: Sequence[InputSpec]) -> str | None:
    """The input that images feed: the one the spec names, the only one, or the only 4-D one."""
    if preprocess is None:
        return None
    if preprocess.input is not None:
        return preprocess.input
    free = [spec for spec in inputs if spec.name not in preprocess.inputs]
    if len(inputs) > 1:
        free = [spec for spec in free if len(spec.shape) == 4]
    return free[0].name if len(free) == 1 else None


def match_names(found: Sequence[str], inputs: Sequence[InputSpec], *, where: str) -> dict[str, str]:
    """Input name → array name.

    A model with one input takes the array of that name, else one with a usual name, else the only
    array that is not labels.

    Raises:
        DataError: an input without an array, with the nearest names found.
    """
    if len(inputs) == 1 and inputs[0].name not in found:
        data = [name for name in found if name not in LABEL_ARRAYS]
        usual = [name for name in _SINGLE if name in data]
        chosen = usual[:1] or (data if len(data) == 1 else [])
        if chosen:
            return {inputs[0].name: chosen[0]}
    missing = [spec.name for spec in inputs if spec.name not in found]
    if missing:
        raise DataError(
            f"{where} has {_listed(found)}, expected an array for input {missing[0]} of the model; "
            f"{_near(missing[0], found)}"
        )
    return {spec.name: spec.name for spec in inputs}


def _listed(names: Sequence[str]) -> str:
    shown = [name or "one unnamed array" for name in names[:8]]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(shown) + more if shown else "nothing"


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "rename it"
