"""Pictures made to be expensive: refused by their header, or converted in little memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artefacts.errors import BusyError, DataError
from calibrators import UPLOADS, ImageLimits, Preprocess, decode_image
from calibrators.preprocessing.images import eight_bits

ROOT = Path(__file__).parents[3]
SMALL = ImageLimits(file_bytes=1 << 20, pixels=64 * 64)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def repeated_scans(side: int, more: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: 16 bytes each."""
    raw = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = raw[raw.rindex(b"\xff\xda") : -2]
    return raw[:-2] + last * more + raw[-2:]


def test_a_jpeg_of_many_scans_is_refused_by_its_size_times_their_number() -> None:
    scans = repeated_scans(64, 0).count(b"\xff\xda")
    assert decode_image(repeated_scans(64, 20 - scans), name="x", limits=SMALL).size == (64, 64)
    with pytest.raises(DataError, match=r"image x has 21 scans of 64 × 64 pixels, expected at mo"):
        decode_image(repeated_scans(64, 21 - scans), name="x", limits=SMALL)
    # Small ones may have as many as they like.
    assert decode_image(repeated_scans(8, 500), name="x", limits=SMALL).size == (8, 8)


def test_fill_bytes_hide_no_scan() -> None:
    raw = repeated_scans(64, 30).replace(b"\xff\xda", b"\xff\xff\xff\xda")
    with pytest.raises(DataError, match=r"scans of 64 × 64"):
        decode_image(raw, name="x", limits=SMALL)


def test_bytes_and_pixels_are_bounded_before_decoding() -> None:
    with pytest.raises(DataError, match=r"x has 1048577 bytes, expected at most 1048576"):
        decode_image(bytes(SMALL.file_bytes + 1), name="x", limits=SMALL)
    with pytest.raises(DataError, match=r"x has 65 × 64 pixels, expected at most 4096"):
        decode_image(encoded(Image.new("L", (65, 64)), "PNG"), name="x", limits=SMALL)
    long = encoded(Image.new("1", (70_000, 1)), "PNG")
    with pytest.raises(DataError, match=r"sides of at most 65535"):
        decode_image(long, name="x")


def test_what_a_short_side_makes_of_a_long_picture_is_bounded() -> None:
    ribbon = np.zeros((1, 600), np.uint8)
    with pytest.raises(DataError, match=r"resize makes 256 × 153600 pixels of the image, expected"):
        Preprocess(resize=256, crop=(224, 224))(ribbon, limits=UPLOADS)
    with pytest.raises(DataError, match=r"resize makes 64 × 128 pixels of the image, expected at"):
        Preprocess(resize=64)(np.zeros((2, 4), np.uint8), limits=SMALL)


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def test_a_file_of_nothing_but_small_parts_is_given_up() -> None:
    picture = encoded(Image.new("L", (4, 4)), "PNG")
    stuffed = picture[:33] + chunk(b"prIv", b"") * 20_000 + picture[33:]
    with pytest.raises(DataError, match=r"image x consists of too many small parts"):
        decode_image(stuffed, name="x")
    jpeg = encoded(Image.new("L", (4, 4)), "JPEG")
    comments = jpeg[:2] + b"\xff\xfe\x00\x02" * 20_000 + jpeg[2:]
    with pytest.raises(DataError, match=r"image x consists of too many small parts"):
        decode_image(comments, name="x")
    assert decode_image(jpeg[:2] + b"\xff\xfe\x00\x02" * 500 + jpeg[2:], name="x").size == (4, 4)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_decoding_ends_with_its_time(form: str) -> None:
    raw = encoded(Image.new("RGB", (4, 4)), form)
    with pytest.raises(BusyError, match=r"image x was still being decoded when its time was up"):
        decode_image(raw, name="x", deadline_s=0.0)
    assert decode_image(raw, name="x", deadline_s=float("inf")).size == (4, 4)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]
)
def test_blocks_of_rows_join_to_what_one_conversion_makes(
    mode: str, rng: np.random.Generator
) -> None:
    colours = Image.fromarray(rng.integers(0, 256, (150, 3, 3), dtype=np.uint8))
    if mode == "I;16":
        values = rng.integers(0, 1 << 16, (150, 3), dtype=np.uint16)
        image = Image.fromarray(values)
        expected = ((values.astype(int) + 128) // 257).astype(np.uint8)
    elif mode in ("P", "PA"):
        image = colours.convert("P")
        image = image.convert("PA") if mode == "PA" else image
        expected = np.asarray(image.convert("RGBA").convert("RGB"))
    else:
        image = colours.convert(mode) if mode != "LA" else colours.convert("L").convert("LA")
        expected = np.asarray(image.convert("L" if mode in ("1", "LA", "L") else "RGB"))
    np.testing.assert_array_equal(np.asarray(eight_bits(image)), expected)


MEASURE = """
import io, resource, sys
from calibrators import decode_image
raw = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(raw, name="x")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_sixteen_bits_take_no_array_of_eight_bytes_a_pixel() -> None:
    raw = encoded(Image.fromarray(np.zeros((4096, 4096), np.uint16)), "PNG", compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], input=raw, cwd=ROOT, capture_output=True, check=True
    )
    assert int(done.stdout) < 96 << 10  # kB: 33 MB decoded, 17 MB converted; it was 300 MB


def test_limits_that_let_nothing_through() -> None:
    with pytest.raises(DataError, match=r"limits are 0 bytes and 1 pixels"):
        ImageLimits(file_bytes=0, pixels=1)
    with pytest.raises(DataError, match=r"and 67108865 pixels, expected"):
        ImageLimits(pixels=(1 << 26) + 1)
