"""Decoding one image that somebody else made: bounded, upright, 8 bits, L or RGB."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from artefacts.errors import DataError, InputError
from artefacts.files import read_bounded
from calibrators.preprocessing.geometry import MAX_PIXELS

__all__ = ["SUFFIXES", "decode_image", "eight_bits", "open_image"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MAX_FILE_BYTES = 1 << 28


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF is not parsed for its resolution: Pillow warns about damaged entries."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


# Signature, where it stands, and Pillow's reader. Only these four decoders ever see a file;
# JPEGs of several pictures (MPO) are read as the first, without their index.
_PLUGINS: tuple[tuple[bytes, int, Callable[[io.BytesIO, str], ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", 0, _Jpeg),
    (b"\x89PNG\r\n\x1a\n", 0, PngImagePlugin.PngImageFile),
    (b"WEBP", 8, WebPImagePlugin.WebPImageFile),
    (b"BM", 0, BmpImagePlugin.BmpImageFile),
)

_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}

# EXIF orientation → what sets the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on damaged files; found by fuzzing them (test_images.py).
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def open_image(path: str | Path) -> Image.Image:
    """Decode an image file; see :func:`decode_image`.

    Raises:
        DataError: no such file, too large, or not a whole image.
    """
    try:
        raw = read_bounded(path, limit_bytes=MAX_FILE_BYTES, what="image")
    except InputError as err:
        raise DataError(str(err)) from err
    return decode_image(raw, name=str(path))


def decode_image(raw: bytes, *, name: str) -> Image.Image:
    """Decode an image: EXIF orientation applied, mode L (if it was grey) or RGB.

    Transparency is dropped, as training pipelines do (``convert("RGB")``, ``cv2.imread``): the
    colour beneath it shows. 16-bit grey is divided by 257, not clipped.

    Args:
        raw: bytes of a JPEG, PNG, WebP or BMP file; the first frame of an animation counts.
        name: named in errors.

    Raises:
        DataError: another format, damaged, or more than 2^26 pixels (checked before decoding).
    """
    image = _opened(raw, name)
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"image {name} has {image.width} × {image.height} pixels, expected at most "
            f"{MAX_PIXELS} (a decompression bomb would be larger); scale it down or remove it"
        )
    try:
        image.load()
    except _DAMAGED as err:
        raise _unreadable(name, str(err)) from err
    turn = _TURNS.get(_orientation(image.info.get("exif")))
    return eight_bits(image if turn is None else image.transpose(turn))


def _opened(raw: bytes, name: str) -> Image.Image:
    """The header only. Image.open would do, but warns of bombs on its way to our refusal."""
    if not raw:
        raise _unreadable(name, "it is empty")
    for magic, offset, plugin in _PLUGINS:
        if raw[offset : offset + len(magic)] == magic:
            try:
                return plugin(io.BytesIO(raw), "")
            except _DAMAGED as err:
                raise _unreadable(name, str(err)) from err
    raise DataError(
        f"image {name} begins with {raw[:8]!r}, expected a JPEG, PNG, WebP or BMP file; "
        "convert it or remove it"
    )


def _unreadable(name: str, reason: str) -> DataError:
    return DataError(
        f"image {name} cannot be decoded ({reason}), expected a whole JPEG, PNG, WebP or BMP file; "
        "replace it or remove it"
    )


def _orientation(exif: object) -> int:
    """EXIF's Orientation (tag 0x0112, 1..8), or 1.

    Source: EXIF 2.32, section 4.6.4: a TIFF header, then entries of 12 bytes. Pillow parses all of
    it and warns about whatever is damaged, which cameras' notes often are.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _BYTE_ORDERS.get(tiff[:2])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    first = number(4, 4)
    for entry in range(first + 2, min(first + 2 + 12 * number(first, 2), len(tiff) - 11), 12):
        if number(entry, 2) == 0x0112:
            return number(entry + 8, 2)
    return 1


def eight_bits(image: Image.Image) -> Image.Image:
    """``image`` in mode L or RGB, whatever its mode."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255: a 16-bit scan would turn white.
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    if image.mode in ("P", "PA"):
        # By way of RGBA, since Pillow warns about palettes whose transparency is a table.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
