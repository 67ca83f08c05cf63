"""Where pixels go: against torchvision's, Ultralytics's and YOLOX's rules, worked out anew."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from artefacts.errors import DataError
from calibrators.preprocessing.geometry import Geometry, Letterbox, resample
from calibrators.preprocessing.preprocess import Preprocess

sides = st.integers(1, 3000)
boxes = st.integers(8, 1280)


@given(sides, sides, st.integers(1, 600))
def test_short_side_keeps_the_aspect_ratio(height: int, width: int, short: int) -> None:
    long = int(short * max(height, width) / min(height, width))  # torchvision's formula
    assume(short * long <= 1 << 26)
    where = Geometry.of((height, width), resize=short, crop=None, letterbox=None)
    assert where.resized == ((short, long) if height <= width else (long, short))


@pytest.mark.parametrize(
    ("before", "crop", "top_left"),
    [((256, 341), 224, (16, 58)), ((256, 256), 225, (16, 16)), ((10, 9), 7, (2, 1))],
)
def test_centre_crop_rounds_half_to_even(
    before: tuple[int, int], crop: int, top_left: tuple[int, int]
) -> None:
    where = Geometry.of(before, resize=None, crop=(crop, crop), letterbox=None)
    assert where.offset == (-top_left[0], -top_left[1])
    pixels = np.arange(before[0] * before[1] * 3).astype(np.uint8).reshape(*before, 3)
    cut = Preprocess(crop=crop, scale=1, layout="nhwc")(pixels)
    top, left = top_left
    np.testing.assert_array_equal(cut, pixels[top : top + crop, left : left + crop])


def test_results_too_large_are_refused_before_they_are_made() -> None:
    with pytest.raises(DataError) as caught:
        Preprocess(resize=256).geometry(1, 60_000_000)
    assert "resize makes 256 × 15360000000 pixels of 1 × 60000000" in str(caught.value)
    assert "at most 67108864" in str(caught.value)


def test_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"crop \[224, 224\].*\[200, 300\].*set resize"):
        Preprocess(crop=224)(np.zeros((200, 300, 3), np.uint8))


@given(sides, sides, boxes, boxes)
def test_centred_letterbox_is_ultralytics_up_to_ties(
    height: int, width: int, tall: int, wide: int
) -> None:
    where = Geometry.of(
        (height, width), resize=None, crop=None, letterbox=Letterbox(size=(tall, wide))
    )
    ratio = min(Fraction(tall, height), Fraction(wide, width))
    for new, old in zip(where.resized, (height, width), strict=True):
        assert abs(new - old * ratio) <= Fraction(1, 2) or new == 1
    before = np.array(where.offset)
    after = np.array((tall, wide)) - where.resized - before
    assert where.size == (tall, wide)
    assert min(before) == 0
    assert set(after - before) <= {0, 1}  # an odd pixel of padding goes below and to the right


@given(sides, sides, boxes, boxes)
def test_top_left_letterbox_rounds_down(height: int, width: int, tall: int, wide: int) -> None:
    box = Letterbox(size=(tall, wide), anchor="top-left")
    where = Geometry.of((height, width), resize=None, crop=None, letterbox=box)
    ratio = min(Fraction(tall, height), Fraction(wide, width))
    assert where.offset == (0, 0)
    assert where.resized == tuple(max(1, math.floor(old * ratio)) for old in (height, width))


@pytest.mark.parametrize("anchor", ["centre", "top-left"])
@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (7, 97), (64, 64), (61, 63)])
def test_letterbox_pixels(anchor: str, height: int, width: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    spec = Preprocess(
        letterbox={"size": [64, 48], "pad": [1, 2, 3], "anchor": anchor}, scale=1, layout="nhwc"
    )
    result = spec(pixels)
    ratio = min(64 / height, 48 / width)
    new = [max(1, (round if anchor == "centre" else int)(old * ratio)) for old in (height, width)]
    top, left = ((64 - new[0]) // 2, (48 - new[1]) // 2) if anchor == "centre" else (0, 0)
    expected = np.full((64, 48, 3), (1, 2, 3), np.uint8)
    resized = Image.fromarray(pixels).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    expected[top : top + new[0], left : left + new[1]] = np.asarray(resized)
    np.testing.assert_array_equal(result, expected)


def test_padding_follows_the_colour_order() -> None:
    spec = Preprocess(
        letterbox={"size": [4, 2], "pad": [1, 2, 3]}, color="bgr", scale=1, layout="nhwc"
    )
    np.testing.assert_array_equal(spec(np.zeros((2, 2, 3), np.uint8))[0, 0], [1, 2, 3])


@given(
    sides,
    sides,
    boxes,
    boxes,
    st.sampled_from(["centre", "top-left"]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_points_map_back_to_the_source(
    height: int, width: int, tall: int, wide: int, anchor: str, right: float, down: float
) -> None:
    spec = Preprocess(letterbox={"size": [tall, wide], "anchor": anchor})
    where = spec.geometry(height, width)
    source = np.array([right * width, down * height])
    scale = np.array(where.resized[::-1]) / (width, height)
    result = source * scale + where.offset[::-1]
    np.testing.assert_allclose(where.to_source(result), source, rtol=1e-9, atol=1e-6)


def test_crop_maps_back_to_the_source() -> None:
    where = Preprocess(resize=256, crop=224).geometry(512, 1024)
    # 512 × 1024 → 256 × 512 → the middle 224: left margin 144, top margin 16, factor 2.
    np.testing.assert_array_equal(where.to_source(np.array([[0.0, 0.0]])), [[288.0, 32.0]])


def pattern(height: int, width: int) -> np.ndarray:
    """A fixed picture without structure."""
    steps = np.arange(height * width * 3, dtype=np.uint64) * np.uint64(2654435761)
    return (steps >> np.uint64(24) & np.uint64(255)).astype(np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(
    ("before", "after", "sha256"),
    [
        # cv2.resize(pattern, (width, height), interpolation=cv2.INTER_LINEAR), OpenCV 5.0.0
        ((48, 64), (31, 41), "9ce3b01e26ee11f4c3e10c2ca0288d43"),
        ((48, 64), (20, 90), "1ce4b658b8e0493f3f279cf39cf975bc"),
        ((33, 50), (64, 97), "f6a756b58b9bac8bbf1cace7941433dc"),
        ((17, 17), (17, 5), "95a9f4ac70d1930d891904fb24fc8a5c"),
    ],
)
def test_without_antialias_bilinear_is_opencv(
    before: tuple[int, int], after: tuple[int, int], sha256: str
) -> None:
    image = Image.fromarray(pattern(*before))
    result = resample(image, after, interpolation="bilinear", antialias=False)
    assert hashlib.sha256(np.asarray(result).tobytes()).hexdigest()[:32] == sha256


@given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 2**32 - 1))
def test_without_antialias_bilinear_interpolates(sizes: tuple[int, ...], seed: int) -> None:
    height, width, tall, wide = sizes
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    result = np.asarray(
        resample(Image.fromarray(pixels), (tall, wide), interpolation="bilinear", antialias=False)
    )
    rows = np.clip((np.arange(tall) + 0.5) * height / tall - 0.5, 0, height - 1)
    columns = np.clip((np.arange(wide) + 0.5) * width / wide - 0.5, 0, width - 1)
    across = np.array([np.interp(columns, np.arange(width), row) for row in pixels.astype(float)])
    exact = np.array([np.interp(rows, np.arange(height), column) for column in across.T]).T
    assert np.abs(result - exact).max() <= 1.0  # weights have 11 bits


def test_antialias_matters_when_shrinking() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, 3::8] = 255  # an eighth is white, and every result pixel lies beside a white one
    plain, smooth = (
        np.asarray(
            resample(Image.fromarray(stripes), (8, 8), interpolation="bilinear", antialias=on)
        )
        for on in (False, True)
    )
    np.testing.assert_array_equal(plain, np.full((8, 8), 128))
    assert abs(smooth.mean() - 255 / 8) < 3
