"""Decoding one image that somebody else made: bounded, upright, 8 bits, L or RGB."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from artefacts.errors import BusyError, DataError, InputError
from artefacts.files import read_bounded
from calibrators.preprocessing.image_limits import FILES, ImageLimits, MeteredFile

__all__ = ["SUFFIXES", "decode_image", "eight_bits", "open_image"]

Found = TypeVar("Found")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_BLOCK_ROWS = 64


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
        raw = read_bounded(path, limit_bytes=FILES.file_bytes, what="image")
    except InputError as err:
        raise DataError(str(err)) from err
    return decode_image(raw, name=str(path))


def decode_image(
    raw: bytes,
    *,
    name: str,
    limits: ImageLimits = FILES,
    deadline_s: float | None = None,
) -> Image.Image:
    """Decode an image: EXIF orientation applied, mode L (if it was grey) or RGB.

    Transparency is dropped, as training pipelines do (``convert("RGB")``, ``cv2.imread``): the
    colour beneath it shows. 16-bit grey is divided by 257, not clipped.

    Args:
        raw: bytes of a JPEG, PNG, WebP or BMP file; the first frame of an animation counts.
        name: named in errors.
        limits: what it may cost, checked before decoding; ``UPLOADS`` for what strangers send.
        deadline_s: on ``time.monotonic``'s clock; what takes longer is given up.

    Raises:
        DataError: another format, damaged, or over the limits.
        BusyError: the time was up.
    """
    limits.check_bytes(raw, name)
    image = _opened(raw, name, deadline_s)
    limits.check_size(image.width, image.height, name)
    if image.format == "JPEG":
        limits.check_scans(raw, image.width, image.height, name)
    _decoded(image.load, name)
    turn = _TURNS.get(_orientation(image.info.get("exif")))
    return eight_bits(image if turn is None else image.transpose(turn))


def _opened(raw: bytes, name: str, deadline_s: float | None) -> ImageFile.ImageFile:
    """The header only. Image.open would do, but warns of bombs on its way to our refusal."""
    if not raw:
        raise _unreadable(name, "it is empty")
    for magic, offset, plugin in _PLUGINS:
        if raw[offset : offset + len(magic)] == magic:
            file = MeteredFile(raw, name=name, deadline_s=deadline_s, small_reads=magic == b"BM")
            return _decoded(lambda: plugin(file, ""), name)  # noqa: B023 - called at once
    raise DataError(
        f"image {name} begins with {raw[:8]!r}, expected a JPEG, PNG, WebP or BMP file; "
        "convert it or remove it"
    )


def _decoded(step: Callable[[], Found], name: str) -> Found:
    """A step of Pillow's, whose many errors all mean a damaged file."""
    try:
        return step()
    except (BusyError, DataError):  # ours, by way of the file that it reads
        raise
    except _DAMAGED as err:
        raise _unreadable(name, str(err)) from err


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
        return _by_blocks(image, "L", _from_sixteen_bits)
    if image.mode in ("1", "LA", "La"):
        return _by_blocks(image, "L", lambda block: block.convert("L"))
    if image.mode in ("P", "PA"):
        # By way of RGBA, since Pillow warns about palettes whose transparency is a table.
        return _by_blocks(image, "RGB", lambda block: block.convert("RGBA").convert("RGB"))
    return _by_blocks(image, "RGB", lambda block: block.convert("RGB"))


def _from_sixteen_bits(block: Image.Image) -> Image.Image:
    """Pillow's own conversion clips at 255: a 16-bit scan would turn white."""
    wide = np.asarray(block).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _by_blocks(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """A conversion pixel by pixel, some rows at a time: no third copy of the picture."""
    result = Image.new(mode, image.size)
    for top in range(0, image.height, _BLOCK_ROWS):
        box = (0, top, image.width, min(top + _BLOCK_ROWS, image.height))
        result.paste(convert(image.crop(box)), box)
    return result
