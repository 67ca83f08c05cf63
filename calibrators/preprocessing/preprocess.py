"""The preprocessing spec: from an image's bytes to what the model is fed with, in one object.

Calibration, evaluation and serving use the same spec; every artefact stores it. The order is fixed:

    upright RGB → resize → crop | letterbox → color → (x · scale - mean) / std → layout → dtype
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artefacts.errors import DataError
from calibrators.preprocessing.geometry import Geometry, Letterbox, resample
from calibrators.preprocessing.image_limits import FILES, ImageLimits
from calibrators.preprocessing.images import eight_bits
from calibrators.preprocessing.spec_file import read_yaml
from calibrators.preprocessing.spec_values import CANONICAL, COLORS, Affine, check_keys, invalid

__all__ = ["Affine", "Letterbox", "Preprocess"]


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
        input: the model input that images feed; None where the model leaves no doubt.
        inputs: how other inputs, by name, become real values.

    Raises:
        DataError: a value that cannot be used, or that contradicts another.
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
        for key, canonical in CANONICAL.items():
            object.__setattr__(self, key, canonical(getattr(self, key)))
        if self.letterbox is not None:
            if self.resize is not None or self.crop is not None:
                raise invalid("letterbox", "together with resize or crop", "one of them alone")
            if len(self.letterbox.pad) not in (1, self.channels):
                raise invalid("letterbox.pad", list(self.letterbox.pad), "one value per channel")
        if not self.antialias and self.interpolation != "bilinear":
            raise invalid("interpolation", self.interpolation, "bilinear with antialias: false")
        if self.layout == "nhw" and self.color != "gray":
            raise invalid("layout", "nhw", f"nchw or nhwc for color {self.color}")
        for key in ("scale", "mean", "std"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != self.channels:
                raise invalid(key, list(value), f"one number or {self.channels} for {self.color}")
        _ = self.table  # an integer dtype that cannot hold the values is found here

    @property
    def channels(self) -> int:
        """Number of channels of the result."""
        return COLORS[self.color]

    @cached_property
    def table(self) -> NDArray[Any]:
        """(C, 256): what each pixel value becomes, rounded once from float64."""
        pixel = np.arange(256, dtype=np.float64)[None]
        scale, mean, std = (
            np.broadcast_to(np.array(value, np.float64), self.channels)[:, None]
            for value in (1.0 if self.scale is None else self.scale, self.mean, self.std)
        )
        table = (pixel * scale - mean) / std
        dtype = np.dtype(self.dtype)
        rounded = np.rint(table) if dtype.kind in "iu" else table
        bounds = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        low, high = float(rounded.min()), float(rounded.max())
        if low < float(bounds.min) or high > float(bounds.max):
            raise invalid("dtype", self.dtype, f"one that holds {low:.4g}..{high:.4g}")
        return rounded.astype(dtype)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the result without batch axis; None where it depends on the image."""
        sides: tuple[int | None, int | None] = (None, None)
        if self.letterbox is not None:
            sides = self.letterbox.size
        elif self.crop is not None:
            sides = self.crop
        elif isinstance(self.resize, tuple):
            sides = self.resize
        channels = (self.channels,)
        return {"nchw": channels + sides, "nhwc": sides + channels, "nhw": sides}[self.layout]

    def geometry(self, height: int, width: int) -> Geometry:
        """Where the pixels of an upright image of this size go."""
        return Geometry.of(
            (height, width), resize=self.resize, crop=self.crop, letterbox=self.letterbox
        )

    def __call__(
        self, image: Image.Image | NDArray[np.uint8], *, limits: ImageLimits = FILES
    ) -> NDArray[Any]:
        """Preprocess one image.

        Args:
            image: a Pillow image, already upright, or uint8 (H, W), (H, W, 1) or (H, W, 3) in RGB
                order.
            limits: what it may be resized to, where its own size decides that.

        Returns:
            An array without batch axis, e.g. (3, 224, 224) float32 for ``nchw``.

        Raises:
            DataError: the array is no image, the crop does not fit, or it would become too large.
        """
        picture = eight_bits(image if isinstance(image, Image.Image) else _from_array(image))
        if self.letterbox is None and not isinstance(self.resize, tuple):
            limits.check_resized(*self.geometry(picture.height, picture.width).resized)
        mode = "L" if self.color == "gray" else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
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
            check_keys("", spec, list(CANONICAL))
            if not spec:
                raise invalid("it", "empty", "at least one key, such as 'scale: 1' for raw pixels")
            return cls(**spec)
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
