"""The preprocessing spec: from an image's bytes to what the model is fed with, in one object.

Calibration, evaluation and serving use the same spec; every artefact stores it. The order is fixed:

    upright RGB → resize → crop | letterbox → color → (x · scale - mean) / std → layout → dtype
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artefacts.errors import DataError
from calibrators.geometry import INTERPOLATIONS, Geometry, Letterbox, resample
from calibrators.spec_file import read_yaml

__all__ = ["Affine", "Preprocess"]

COLORS = {"rgb": 3, "bgr": 3, "gray": 1}
LAYOUTS = {"nchw": (2, 0, 1), "nhwc": (0, 1, 2), "nhw": (0, 1)}
DTYPES = ("float32", "float16", "uint8", "int8")
_LARGEST_SIDE = 16384


@dataclass(frozen=True, kw_only=True)
class Affine:
    """``x = (value - zero_point) * scale`` for an input that is not an image.

    The words are ONNX's DequantizeLinear: features stored as int8 are turned back with them.
    """

    scale: float = 1.0
    zero_point: float = 0.0

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The real values, in float64."""
        return np.asarray((np.asarray(values, np.float64) - self.zero_point) * self.scale)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to an image, and to inputs that are none, before the model sees them.

    Attributes:
        resize: short side, or exact (height, width).
        crop: (height, width) of a centre crop.
        letterbox: fit with the aspect ratio kept, fill the rest; not together with the two above.
        interpolation: ``nearest``, ``box``, ``bilinear``, ``bicubic`` or ``lanczos``.
        antialias: False for OpenCV's INTER_LINEAR (bilinear only).
        color: ``rgb``, ``bgr`` or ``gray``: the channels and their order.
        scale: factor on 0..255, one or one per channel; None is 1, but nobody said so.
        mean: subtracted after ``scale``.
        std: divided by, after ``mean``.
        layout: ``nchw``, ``nhwc`` or, for gray, ``nhw``.
        dtype: ``float32``, ``float16``, ``uint8`` or ``int8``.
        input: the model input that images feed; None where the model has one only.
        inputs: other inputs by name.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    letterbox: Letterbox | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    color: str = "rgb"
    scale: float | tuple[float, ...] | None = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    layout: str = "nchw"
    dtype: str = "float32"
    input: str | None = None
    inputs: Mapping[str, Affine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _one_of("interpolation", self.interpolation, tuple(INTERPOLATIONS))
        _one_of("color", self.color, tuple(COLORS))
        _one_of("layout", self.layout, tuple(LAYOUTS))
        _one_of("dtype", self.dtype, DTYPES)
        self._check_geometry()
        for key in ("scale", "mean", "std"):
            self._check_channels(key)
        if self.layout == "nhw" and self.color != "gray":
            raise _invalid("layout", "nhw", f"nchw or nhwc for color {self.color}")
        _ = self.table

    def _check_geometry(self) -> None:
        if self.letterbox is not None:
            if self.resize is not None or self.crop is not None:
                raise _invalid("letterbox", "together with resize or crop", "one of them alone")
            _one_of("letterbox.anchor", self.letterbox.anchor, ("centre", "top-left"))
            if len(self.letterbox.pad) not in (1, self.channels):
                raise _invalid("letterbox.pad", list(self.letterbox.pad), "one value per channel")
        if not self.antialias and self.interpolation != "bilinear":
            raise _invalid("antialias", "false", "interpolation: bilinear with it")

    def _check_channels(self, key: str) -> None:
        value = getattr(self, key)
        if isinstance(value, tuple) and len(value) != self.channels:
            raise _invalid(key, list(value), f"one number or {self.channels} for {self.color}")
        if key != "mean" and value is not None and 0.0 in np.atleast_1d(value):
            raise _invalid(key, value, "numbers other than 0")

    @property
    def channels(self) -> int:
        """Number of channels of the result."""
        return COLORS[self.color]

    @cached_property
    def table(self) -> NDArray[Any]:
        """(C, 256): what each pixel value becomes, rounded once from float64.

        Raises:
            DataError: an integer dtype cannot hold the values.
        """
        pixel = np.arange(256, dtype=np.float64)[None]
        scale, mean, std = (
            np.broadcast_to(np.array(value, np.float64), self.channels)[:, None]
            for value in (1.0 if self.scale is None else self.scale, self.mean, self.std)
        )
        table = (pixel * scale - mean) / std
        dtype = np.dtype(self.dtype)
        bounds = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        if table.min() < float(bounds.min) or table.max() > float(bounds.max):
            raise _invalid(
                "dtype", self.dtype, f"one that holds {table.min():.4g}..{table.max():.4g}"
            )
        return (np.rint(table) if dtype.kind in "iu" else table).astype(dtype)

    def geometry(self, height: int, width: int) -> Geometry:
        """Where the pixels of an upright image of this size go."""
        return Geometry.of(
            (height, width), resize=self.resize, crop=self.crop, letterbox=self.letterbox
        )

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[Any]:
        """Preprocess one image.

        Args:
            image: a Pillow image in mode L or RGB, or uint8 (H, W), (H, W, 1) or (H, W, 3) in RGB
                order.

        Returns:
            An array without batch axis, e.g. (3, 224, 224) float32 for ``nchw``.

        Raises:
            DataError: the array is no image, or the crop does not fit.
        """
        picture = image if isinstance(image, Image.Image) else _from_array(image)
        picture = picture.convert("L" if self.color == "gray" else "RGB")
        pixels = self._place(picture)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        return self._normalise(pixels)

    def _place(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Resize, crop or pad: (H, W, C) in RGB order."""
        where = self.geometry(picture.height, picture.width)
        picture = resample(
            picture, where.resized, interpolation=self.interpolation, antialias=self.antialias
        )
        pixels = np.asarray(picture).reshape(*where.resized, self.channels)
        (top, left), (height, width) = where.offset, where.size
        if self.letterbox is None:
            return pixels[-top : height - top, -left : width - left]
        pad = self.letterbox.pad[::-1] if self.color == "bgr" else self.letterbox.pad
        canvas = np.empty((height, width, self.channels), np.uint8)
        canvas[:] = pad
        canvas[top : top + where.resized[0], left : left + where.resized[1]] = pixels
        return canvas

    def _normalise(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        if self.layout == "nhw":
            return np.asarray(self.table[0][pixels[:, :, 0]])
        planes = np.empty((self.channels, *pixels.shape[:2]), self.dtype)
        for channel in range(self.channels):
            self.table[channel].take(pixels[:, :, channel], out=planes[channel])
        if self.layout == "nhwc":
            return np.ascontiguousarray(planes.transpose(1, 2, 0))
        return planes

    @classmethod
    def from_yaml(cls, path: str | Path) -> Preprocess:
        """Read a spec file (YAML or JSON).

        Raises:
            DataError: not YAML, an unknown key, or a value that cannot be used.
        """
        return cls.from_dict(read_yaml(path), where=str(path))

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any], *, where: str = "preprocessing spec") -> Preprocess:
        """Parse a spec; ``where`` names it in errors.

        Raises:
            DataError: an unknown key, or a value that cannot be used.
        """
        try:
            return cls(**_parse(spec))
        except DataError as err:
            raise DataError(f"{where}: {err}") from err

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` of them gives an equal spec."""
        plain: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None or (entry.name == "inputs" and not value):
                continue
            plain[entry.name] = _plain(value)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Letterbox):
        return {"size": list(value.size), "pad": list(value.pad), "anchor": value.anchor}
    if isinstance(value, Mapping):
        return {
            name: {"scale": entry.scale, "zero_point": entry.zero_point}
            for name, entry in value.items()
        }
    return value


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))
    ):
        raise DataError(
            f"image array is {array.dtype} {list(array.shape)}, expected uint8 (H, W), (H, W, 1) "
            "or (H, W, 3); convert it, or leave the preprocessing spec out for prepared data"
        )
    return Image.fromarray(array.reshape(array.shape[:2]) if array.shape[2:] == (1,) else array)


def _parse(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments from plain values."""
    _known("", spec, [entry.name for entry in fields(Preprocess)])
    if not spec:
        raise DataError("it is empty, expected at least one key; for raw pixels write: scale: 1")
    parsed: dict[str, Any] = {}
    for key, value in spec.items():
        if key == "resize":
            parsed[key] = _size(key, value) if isinstance(value, list) else _side(key, value)
        elif key == "crop":
            parsed[key] = _size(key, value)
        elif key == "letterbox":
            parsed[key] = _letterbox(value)
        elif key in ("scale", "mean", "std"):
            parsed[key] = _numbers(key, value)
        elif key == "antialias":
            if not isinstance(value, bool):
                raise _invalid(key, value, "true or false")
            parsed[key] = value
        elif key == "inputs":
            parsed[key] = _affines(value)
        else:
            if not isinstance(value, str):
                raise _invalid(key, value, "a word")
            parsed[key] = value
    return parsed


def _letterbox(value: Any) -> Letterbox:
    if not isinstance(value, Mapping):
        return Letterbox(size=_size("letterbox", value))
    _known("letterbox.", value, [entry.name for entry in fields(Letterbox)])
    if "size" not in value:
        raise _invalid("letterbox", "without size", "size: [height, width]")
    pad = value.get("pad", 114)
    pads = pad if isinstance(pad, list) else [pad]
    if not all(type(entry) is int and 0 <= entry <= 255 for entry in pads):
        raise _invalid("letterbox.pad", pad, "integers from 0 to 255")
    return Letterbox(
        size=_size("letterbox.size", value["size"]),
        pad=tuple(pads),
        anchor=value.get("anchor", "centre"),
    )


def _affines(value: Any) -> dict[str, Affine]:
    if not isinstance(value, Mapping):
        raise _invalid("inputs", value, "input name: {scale: …, zero_point: …}")
    affines = {}
    for name, entry in value.items():
        if not isinstance(entry, Mapping):
            raise _invalid(f"inputs.{name}", entry, "{scale: …, zero_point: …}")
        _known(f"inputs.{name}.", entry, [part.name for part in fields(Affine)])
        numbers = {key: _number(f"inputs.{name}.{key}", part) for key, part in entry.items()}
        affines[str(name)] = Affine(**numbers)
    return affines


def _known(prefix: str, spec: Mapping[str, Any], names: list[str]) -> None:
    for key in spec:
        if key not in names:
            near = difflib.get_close_matches(str(key).lower(), names, n=1, cutoff=0.0)[0]
            raise DataError(
                f"unknown key {prefix}{key}, expected one of {', '.join(names)}; "
                f"did you mean {prefix}{near}?"
            )


def _one_of(key: str, value: Any, names: tuple[str, ...]) -> None:
    if value not in names:
        raise _invalid(key, value, f"one of {', '.join(names)}")


def _size(key: str, value: Any) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        return _side(key, value[0]), _side(key, value[1])
    if isinstance(value, list):
        raise _invalid(key, value, "one side or [height, width]")
    return _side(key, value), _side(key, value)


def _side(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST_SIDE:
        raise _invalid(key, value, f"pixels from 1 to {_LARGEST_SIDE}")
    return value


def _numbers(key: str, value: Any) -> float | tuple[float, ...]:
    if isinstance(value, list):
        return tuple(_number(key, entry) for entry in value)
    return _number(key, value)


def _number(key: str, value: Any) -> float:
    """A finite number; a string may be a fraction, since people write ``scale: 1/255``."""
    try:
        number = float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError, OverflowError):
        number = value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise _invalid(key, value, "a number or a fraction such as 1/255")
    if not math.isfinite(number):
        raise _invalid(key, value, "a finite number")
    return float(number)


def _invalid(key: str, found: object, expected: str) -> DataError:
    return DataError(f"{key} is {found}, expected {expected}; correct the preprocessing spec")
