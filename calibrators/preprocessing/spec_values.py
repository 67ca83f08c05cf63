"""The values of a preprocessing spec: checked one by one, and brought into one form.

Each function takes what a person wrote in YAML, JSON or Python, or its own result.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.errors import DataError
from artefacts.texts import shortened, shown
from calibrators.preprocessing.geometry import INTERPOLATIONS, Letterbox

__all__ = ["CANONICAL", "COLORS", "LAYOUTS", "Affine", "check_keys", "invalid"]

COLORS = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS = ("nchw", "nhwc", "nhw")
DTYPES = ("float32", "float16", "uint8", "int8")
_LARGEST_SIDE = 16384


@dataclass(frozen=True, kw_only=True)
class Affine:
    """``x = (value - zero_point) * scale`` for an input that is not an image.

    The words are those of ONNX's DequantizeLinear: features stored as int8 are turned back so.
    """

    scale: float = 1.0
    zero_point: float = 0.0

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The real values, in float64."""
        return np.asarray((np.asarray(values, np.float64) - self.zero_point) * self.scale)


def invalid(key: str, found: object, expected: str) -> DataError:
    """The error for one value of a spec."""
    text = shortened(found) if isinstance(found, str) else shown(found)
    return DataError(f"{key} is {text}, expected {expected}; correct the preprocessing spec")


def check_keys(prefix: str, found: Iterable[object], names: list[str]) -> None:
    """Refuse keys that a spec does not have.

    Raises:
        DataError: an unknown key, with the nearest known one.
    """
    for key in found:
        if key not in names:
            text = shortened(key) if isinstance(key, str) else shown(key)
            near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.0)[0]
            raise DataError(
                f"unknown key {prefix}{text}, expected one of {', '.join(names)}; "
                f"did you mean {prefix}{near}?"
            )


def _resize(value: Any) -> int | tuple[int, int] | None:
    """None, the short side, or (height, width)."""
    if isinstance(value, (list, tuple)):
        return _size("resize", value)
    return None if value is None else _side("resize", value)


def _crop(value: Any) -> tuple[int, int] | None:
    return None if value is None else _size("crop", value)


def _size(key: str, value: Any) -> tuple[int, int]:
    """(height, width); a single number is both."""
    if not isinstance(value, (list, tuple)):
        return _side(key, value), _side(key, value)
    if len(value) != 2:
        raise invalid(key, value, "one side or [height, width]")
    return _side(key, value[0]), _side(key, value[1])


def _side(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST_SIDE:
        raise invalid(key, value, f"pixels from 1 to {_LARGEST_SIDE}")
    return value


def _letterbox(value: Any) -> Letterbox | None:
    if value is None:
        return None
    if isinstance(value, Letterbox):
        value = {"size": value.size, "pad": value.pad, "anchor": value.anchor}
    elif not isinstance(value, Mapping):
        value = {"size": value}
    check_keys("letterbox.", value, [entry.name for entry in fields(Letterbox)])
    if "size" not in value:
        raise invalid("letterbox", "without size", "size: [height, width]")
    pad = value.get("pad", 114)
    pads = tuple(pad) if isinstance(pad, (list, tuple)) else (pad,)
    if not pads or not all(type(entry) is int and 0 <= entry <= 255 for entry in pads):
        raise invalid("letterbox.pad", pad, "integers from 0 to 255")
    anchor = _word("letterbox.anchor", ("centre", "top-left"))(value.get("anchor", "centre"))
    return Letterbox(size=_size("letterbox.size", value["size"]), pad=pads, anchor=anchor)


def _word(key: str, names: Iterable[str]) -> Callable[[Any], str]:
    known = tuple(names)

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise invalid(key, value, f"one of {', '.join(known)}")
        return value

    return check


def _flag(key: str) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise invalid(key, value, "true or false")
        return value

    return check


def _numbers(
    key: str, *, zero: bool, optional: bool = False
) -> Callable[[Any], float | tuple[float, ...] | None]:
    """One number, or one for each channel."""

    def check(value: Any) -> float | tuple[float, ...] | None:
        if value is None and optional:
            return None
        several = isinstance(value, (list, tuple))
        numbers = tuple(_number(key, entry) for entry in (value if several else (value,)))
        if not numbers or (0.0 in numbers and not zero):
            raise invalid(key, value, "numbers other than 0")
        return numbers if several else numbers[0]

    return check


def _number(key: str, value: Any) -> float:
    """A finite number; a string may be a fraction, since people write ``scale: 1/255``."""
    number = value.item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, (int, float, str)):
        raise invalid(key, value, "a number or a fraction such as 1/255")
    try:
        above, slash, below = str(number).partition("/")
        number = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as err:
        raise invalid(key, value, "a number or a fraction such as 1/255") from err
    if not math.isfinite(number):
        raise invalid(key, value, "a finite number")
    return number


def _input(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise invalid("input", value, "the name of a model input")
    return value


def _affines(value: Any) -> dict[str, Affine]:
    if not isinstance(value, Mapping):
        raise invalid("inputs", value, "input name: {scale: …, zero_point: …}")
    if not all(isinstance(name, str) for name in value):
        raise invalid("inputs", value, "names of inputs as keys")
    return {name: _affine(f"inputs.{shortened(name)}", entry) for name, entry in value.items()}


def _affine(key: str, value: Any) -> Affine:
    if isinstance(value, Affine):
        value = {"scale": value.scale, "zero_point": value.zero_point}
    if not isinstance(value, Mapping):
        raise invalid(key, value, "{scale: …, zero_point: …}")
    check_keys(f"{key}.", value, [entry.name for entry in fields(Affine)])
    numbers = {name: _number(f"{key}.{name}", entry) for name, entry in value.items()}
    if numbers.get("scale") == 0.0:
        raise invalid(f"{key}.scale", 0, "a number other than 0")
    return Affine(**numbers)


CANONICAL: dict[str, Callable[[Any], Any]] = {
    "resize": _resize,
    "crop": _crop,
    "letterbox": _letterbox,
    "interpolation": _word("interpolation", INTERPOLATIONS),
    "antialias": _flag("antialias"),
    "color": _word("color", COLORS),
    "scale": _numbers("scale", zero=False, optional=True),
    "mean": _numbers("mean", zero=True),
    "std": _numbers("std", zero=False),
    "layout": _word("layout", LAYOUTS),
    "dtype": _word("dtype", DTYPES),
    "input": _input,
    "inputs": _affines,
}
"""Key of a spec → the function that checks its value and brings it into one form."""
