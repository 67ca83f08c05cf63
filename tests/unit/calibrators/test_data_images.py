"""Image files as people have them: every mode, every orientation, and the damaged ones."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artefacts.errors import DataError
from calibrators.preprocessing.images import decode_image, open_image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(rng: np.random.Generator, height: int = 24, width: int = 40) -> Image.Image:
    """Smooth, so that lossy formats keep it within a few levels."""
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 24),
        ("JPEG", {"quality": 98}, 24),
        ("JPEG", {"quality": 98, "progressive": True}, 24),
        ("JPEG", {"quality": 98, "optimize": True, "subsampling": 0}, 24),
    ],
    ids=str,
)
def test_formats(
    form: str, options: dict[str, object], tolerance: int, rng: np.random.Generator
) -> None:
    image = photo(rng)
    decoded = decode_image(encoded(image, form, **options), name="x")
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(image)).max() <= tolerance


def test_cmyk_jpeg(rng: np.random.Generator) -> None:
    image = photo(rng)
    decoded = decode_image(encoded(image.convert("CMYK"), "JPEG", quality=98), name="x")
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(image)).mean() < 12


@pytest.mark.parametrize("value", [0, 1, 128, 256, 257, 32768, 65278, 65535])
def test_sixteen_bit_gray_is_scaled_not_clipped(value: int) -> None:
    raw = encoded(Image.fromarray(np.full((2, 3), value, np.uint16)), "PNG")
    decoded = decode_image(raw, name="scan.png")
    assert decoded.mode == "L"
    np.testing.assert_array_equal(np.asarray(decoded), np.full((2, 3), round(value / 257)))


def png(color_type: int, depth: int, rows: bytes, *, width: int, height: int) -> bytes:
    """A PNG written by hand, for kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    data = zlib.compress(rows)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_sixteen_bit_colour() -> None:
    pixel = struct.pack(">HHH", 0x1234, 0xFFFF, 0x0080)
    decoded = decode_image(png(2, 16, b"\0" + pixel, width=1, height=1), name="x")
    np.testing.assert_allclose(np.asarray(decoded)[0, 0], [0x12, 0xFF, 0x00], atol=1)


def test_gray_stays_gray_and_bits_become_bytes() -> None:
    gray = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert decode_image(encoded(gray, "PNG"), name="x").mode == "L"
    bits = decode_image(encoded(gray.point(lambda v: v > 50, "1"), "PNG"), name="x")
    np.testing.assert_array_equal(np.asarray(bits), [[0, 255, 255]])


def test_transparency_is_dropped_without_a_warning() -> None:
    # pytest turns warnings into errors, among them Pillow's on palettes with transparency.
    colours = np.array([[[255, 0, 0, 0], [0, 255, 0, 128], [0, 0, 255, 255]]], np.uint8)
    rgba = Image.fromarray(colours)
    np.testing.assert_array_equal(decode_image(encoded(rgba, "PNG"), name="x"), colours[..., :3])
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 1, 2])
    raw = encoded(palette, "PNG", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(decode_image(raw, name="x"), colours[..., :3])
    raw = encoded(palette, "PNG", transparency=1)
    np.testing.assert_array_equal(decode_image(raw, name="x"), colours[..., :3])
    gray = encoded(Image.fromarray(np.array([[[9, 0], [200, 255]]], np.uint8)), "PNG")
    np.testing.assert_array_equal(decode_image(gray, name="x"), [[9, 200]])


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_exif_orientation(orientation: int, form: str, rng: np.random.Generator) -> None:
    image = photo(rng)
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(image, form, exif=exif)
    stored = np.asarray(Image.open(io.BytesIO(raw)))
    np.testing.assert_array_equal(decode_image(raw, name="x"), TURNS[orientation](stored))


def test_first_frame_of_an_animation_and_of_a_stereo_photo(rng: np.random.Generator) -> None:
    first, second = photo(rng), photo(rng)
    webp = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(decode_image(webp, name="x"), first)
    stereo = encoded(first, "MPO", save_all=True, append_images=[second], quality=98)
    assert np.abs(np.asarray(decode_image(stereo, name="x")).astype(int) - first).max() <= 24


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "it is empty"),
        (b"GIF89a\x01\x00\x01\x00", "begins with b'GIF89a\\x01\\x00'"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYP'"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (b"BM", "cannot be decoded"),
        (b"\xff\xd8\xff\xe0", "cannot be decoded"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "cannot be decoded"),
    ],
    ids=["empty", "gif", "html", "png", "bmp", "jpeg", "webp"],
)
def test_what_is_no_image(raw: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        decode_image(raw, name="photos/a.jpg")
    assert str(caught.value).startswith("image photos/a.jpg ")
    assert said in str(caught.value)
    assert "remove it" in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_truncated_files_are_refused(form: str, rng: np.random.Generator) -> None:
    raw = encoded(photo(rng), form)
    with pytest.raises(DataError, match="image cut cannot be decoded"):
        decode_image(raw[: len(raw) * 2 // 3], name="cut")


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (10_000, 10_000), (60_000, 60_000)])
def test_bombs_are_refused_before_decoding(width: int, height: int) -> None:
    raw = png(0, 1, b"", width=width, height=height)  # no pixel data at all: decoding would fail
    with pytest.raises(DataError) as caught:
        decode_image(raw, name="bomb.png")
    assert f"{width} × {height} pixels, expected at most 67108864" in str(caught.value)


def test_files_that_are_missing_or_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="expected a file"):
        open_image(tmp_path)


SEEDS = [
    encoded(Image.effect_noise((16, 16), 64).convert("RGB"), form)
    for form in ("JPEG", "PNG", "BMP", "WEBP")
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    st.integers(0, 2000),
)
def test_damaged_files_give_a_picture_or_a_sentence(
    raw: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(raw)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    data = bytes(damaged[: len(damaged) - cut % len(damaged)])
    with contextlib.suppress(DataError):
        assert decode_image(data, name="x").mode in ("L", "RGB")


@pytest.mark.parametrize(
    "exif", [b"II*\0", b"MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"?"]
)
def test_damaged_exif_is_ignored_without_a_warning(exif: bytes, rng: np.random.Generator) -> None:
    raw = encoded(photo(rng), "JPEG", exif=exif)
    assert decode_image(raw, name="x").size == (40, 24)
