"""The preprocessing spec: values, order of steps, files, errors."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artefacts.errors import DataError, InputError
from calibrators.preprocessing.preprocess import Affine, Letterbox, Preprocess


def image(rng: np.random.Generator, height: int = 12, width: int = 17) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_values_are_scaled_then_centred_then_divided(rng: np.random.Generator) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = image(rng)
    result = Preprocess(scale="1/255", mean=mean, std=std)(pixels)
    expected = (pixels.astype(np.float64) / 255 - mean) / std
    assert result.dtype == np.float32
    assert result.shape == (3, 12, 17)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected.transpose(2, 0, 1).astype(np.float32))


def test_bgr_reverses_channels_and_per_channel_numbers_follow_it(rng: np.random.Generator) -> None:
    pixels = image(rng)
    result = Preprocess(color="bgr", scale=1, mean=(103.5, 116.3, 123.7))(pixels)
    expected = pixels[:, :, ::-1].astype(np.float64) - (103.5, 116.3, 123.7)
    np.testing.assert_array_equal(result, expected.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize(
    ("layout", "shape"), [("nchw", (3, 12, 17)), ("nhwc", (12, 17, 3))], ids=["nchw", "nhwc"]
)
def test_layout_of_colour(layout: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = image(rng)
    result = Preprocess(layout=layout, scale=1)(pixels)
    assert result.shape == shape
    channel_axis = 0 if layout == "nchw" else 2
    np.testing.assert_array_equal(np.moveaxis(result, channel_axis, 2), pixels)


@pytest.mark.parametrize(
    ("layout", "shape"), [("nchw", (1, 12, 17)), ("nhwc", (12, 17, 1)), ("nhw", (12, 17))]
)
def test_layout_of_gray(layout: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (12, 17), dtype=np.uint8)
    result = Preprocess(color="gray", layout=layout, scale=1)(pixels)
    assert result.shape == shape
    np.testing.assert_array_equal(result.reshape(12, 17), pixels)


def test_gray_uses_rec_601_and_gray_images_become_three_equal_channels() -> None:
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    luma = Preprocess(color="gray", scale=1, layout="nhw")(colour)
    np.testing.assert_allclose(luma, [[0.299 * 255, 0.587 * 255, 0.114 * 255, 255]], atol=0.51)
    gray = Preprocess(scale=1)(np.full((2, 2), 7, np.uint8))
    np.testing.assert_array_equal(gray, np.full((3, 2, 2), 7.0))


def test_integer_models_get_integers(rng: np.random.Generator) -> None:
    pixels = image(rng)
    raw = Preprocess(dtype="uint8", layout="nhwc", scale=1)(pixels)
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw, pixels)
    shifted = Preprocess(dtype="int8", layout="nhwc", scale=1, mean=128)(pixels)
    np.testing.assert_array_equal(shifted, (pixels.astype(int) - 128).astype(np.int8))


def test_half_precision_is_rounded_once() -> None:
    spec = Preprocess(
        dtype="float16", scale="1/255", mean=0.485, std=0.229, layout="nhw", color="gray"
    )
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = ((pixels / 255.0 - 0.485) / 0.229).astype(np.float16)
    np.testing.assert_array_equal(spec(pixels), expected)


def test_pillow_images_of_any_mode_are_taken() -> None:
    spec = Preprocess(scale=1)
    for mode in ("L", "RGB", "RGBA", "P", "CMYK", "1", "LA", "I;16"):
        assert spec(Image.new(mode, (4, 3))).shape == (3, 3, 4), mode
    wide = Image.fromarray(np.full((2, 2), 257 * 9, np.uint16))
    np.testing.assert_array_equal(spec(wide), np.full((3, 2, 2), 9.0))


def test_affine_inputs() -> None:
    affine = Preprocess(inputs={"x": {"scale": 0.5, "zero_point": 83}}).inputs["x"]
    np.testing.assert_array_equal(affine(np.array([83, 85, -128], np.int8)), [0.0, 1.0, -105.5])


numbers = st.floats(-1e3, 1e3).filter(lambda value: abs(value) > 1e-3)
channels = st.one_of(numbers, st.tuples(numbers, numbers, numbers))
sides = st.integers(1, 16384)
specs = st.fixed_dictionaries(
    {},
    optional={
        "resize": st.one_of(sides, st.tuples(sides, sides)),
        "crop": st.one_of(sides, st.tuples(sides, sides)),
        "interpolation": st.sampled_from(["nearest", "box", "bilinear", "bicubic", "lanczos"]),
        "color": st.sampled_from(["rgb", "bgr"]),
        "scale": channels,
        "mean": channels,
        "std": channels,
        "layout": st.sampled_from(["nchw", "nhwc"]),
        "input": st.text(min_size=1),
        "inputs": st.dictionaries(
            st.text(), st.builds(Affine, scale=numbers, zero_point=numbers), max_size=3
        ),
    },
)


@given(specs)
def test_spec_survives_json_exactly(values: dict[str, Any]) -> None:
    spec = Preprocess(**values)
    assert Preprocess.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(st.tuples(sides, sides), st.tuples(*[st.integers(0, 255)] * 3))
def test_letterbox_survives_json_exactly(size: tuple[int, int], pad: tuple[int, ...]) -> None:
    spec = Preprocess(letterbox=Letterbox(size=size, pad=pad, anchor="top-left"))
    assert Preprocess.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "preprocess.yaml"
    path.write_text(
        "resize: 256\ncrop: 224\nscale: 1/255\n"
        "mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]\n"
    )
    assert Preprocess.from_yaml(path) == Preprocess(
        resize=256,
        crop=(224, 224),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def test_numbers_may_be_fractions_and_exponents() -> None:
    spec = Preprocess.from_dict({"scale": "1/127.5", "mean": "1e-3", "std": "0.5"})
    assert (spec.scale, spec.mean, spec.std) == (1 / 127.5, 1e-3, 0.5)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"reszie": 256}, ["unknown key reszie", "did you mean resize?"]),
        ({"Mean": 1}, ["unknown key Mean", "did you mean mean?"]),
        ({"letterbox": {"size": 8, "fill": 0}}, ["letterbox.fill", "size, pad, anchor"]),
        ({"inputs": {"x": {"scal": 1}}}, ["inputs.x.scal", "did you mean inputs.x.scale?"]),
        ({}, ["empty", "scale: 1"]),
        ({"resize": 0}, ["resize is 0", "1 to 16384"]),
        ({"resize": "256"}, ["resize is 256"]),
        ({"resize": True}, ["resize is True"]),
        ({"resize": [256]}, ["resize is [256]", "[height, width]"]),
        ({"crop": [224, 224, 3]}, ["crop is [224, 224, 3]"]),
        ({"crop": 2.5}, ["crop is 2.5"]),
        ({"letterbox": {"pad": 114}}, ["letterbox is without size"]),
        ({"letterbox": {"size": 8, "pad": 256}}, ["letterbox.pad is 256", "0 to 255"]),
        ({"letterbox": {"size": 8, "pad": [1, 2]}}, ["letterbox.pad is [1, 2]"]),
        ({"letterbox": {"size": 8, "anchor": "left"}}, ["letterbox.anchor is left", "top-left"]),
        ({"letterbox": 8, "resize": 8}, ["letterbox is together with resize"]),
        ({"interpolation": "cubic"}, ["interpolation is cubic", "bicubic"]),
        ({"interpolation": "bicubic", "antialias": False}, ["bilinear with antialias: false"]),
        ({"antialias": "yes"}, ["antialias is yes", "true or false"]),
        ({"color": "RGB"}, ["color is RGB", "rgb, bgr, gray"]),
        ({"color": ["rgb"]}, ["color is ['rgb']"]),
        ({"scale": "a/b"}, ["scale is a/b", "1/255"]),
        ({"scale": "1/0"}, ["scale is 1/0"]),
        ({"scale": 0}, ["scale is 0", "other than 0"]),
        ({"scale": float("nan")}, ["scale is nan", "finite"]),
        ({"scale": "1e999"}, ["scale is 1e999", "finite"]),
        ({"scale": "1e999999999"}, ["scale is 1e999999999"]),
        ({"scale": 10**400}, ["scale is 1000", "finite"]),
        ({"scale": "1/2/3"}, ["scale is 1/2/3"]),
        ({"scale": True}, ["scale is True"]),
        ({"mean": [0.5, 0.5]}, ["mean is [0.5, 0.5]", "one number or 3 for rgb"]),
        ({"mean": []}, ["mean is []"]),
        ({"mean": None}, ["mean is None"]),
        ({"std": [1, 0, 1]}, ["std is [1, 0, 1]", "other than 0"]),
        ({"color": "gray", "mean": [1, 2, 3]}, ["one number or 1 for gray"]),
        ({"layout": "chw"}, ["layout is chw", "nchw, nhwc, nhw"]),
        ({"layout": "nhw"}, ["layout is nhw", "nchw or nhwc for color rgb"]),
        ({"dtype": "float"}, ["dtype is float", "float32"]),
        ({"dtype": "int8"}, ["dtype is int8", "0..255"]),
        ({"dtype": "float16", "scale": 1000}, ["dtype is float16", "2.55e+05"]),
        ({"inputs": ["x"]}, ["inputs is ['x']"]),
        ({"inputs": {"x": 3}}, ["inputs.x is 3"]),
        ({"inputs": {"x": {"scale": 0}}}, ["inputs.x.scale is 0"]),
        ({"input": 3}, ["input is 3"]),
    ],
    ids=str,
)
def test_bad_values_are_named_with_their_remedy(spec: Mapping[str, Any], said: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        Preprocess.from_dict(spec, where="calib.yaml")
    assert str(caught.value).startswith("calib.yaml: ")
    for part in said:
        assert part in str(caught.value)


def test_constructor_holds_to_the_same_rules() -> None:
    with pytest.raises(DataError, match="one number or 3 for rgb"):
        Preprocess(mean=(1.0, 2.0))
    assert Preprocess(crop=224, mean=[1, 2, 3]) == Preprocess(crop=(224, 224), mean=(1.0, 2.0, 3.0))
    assert replace(Preprocess(scale=1), color="bgr").channels == 3


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((4,), np.uint8)],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError) as caught:
        Preprocess(scale=1)(array)
    assert str(array.dtype) in str(caught.value)
    assert str(list(array.shape)) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\n", "alias"),
        ("scale: 1\nscale: 2\n", "key scale twice"),
        ("- 1\n- 2\n", "holds a list"),
        ("scale: [1, 2\n", "cannot be used"),
        ("scale: !!python/object/apply:os.system ['true']\n", "cannot be used"),
        ("? {a: 1}\n: 2\n", "cannot be used"),
        ("[" * 3000, "cannot be used"),
        ("scale: 1e400\n", "1e400"),
        ("scale: .inf\n", "finite"),
        ("scale: 2024-01-01\n", "scale is 2024-01-01"),
        ("scale: 9999-99-99\n", "cannot be used"),
        ("", "empty"),
        ("\x00", "cannot be used"),
    ],
)
def test_hostile_yaml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        Preprocess.from_yaml(path)
    assert said in str(caught.value)
    assert "spec.yaml" in str(caught.value)


def test_yaml_files_missing_and_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Preprocess.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "large.yaml").write_text("#" * (64 * 1024 + 1))
    with pytest.raises(InputError, match="65537 bytes, expected at most 65536"):
        Preprocess.from_yaml(tmp_path / "large.yaml")


@given(st.binary(max_size=60))
def test_any_bytes_give_a_spec_or_a_sentence(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_bytes(raw)
        with contextlib.suppress(InputError):
            assert isinstance(Preprocess.from_yaml(path), Preprocess)
