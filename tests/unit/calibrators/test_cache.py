"""TensorRT's calibration cache: exact bytes, NVIDIA's own files, any bytes at all."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artefacts.errors import ArtefactError, InputError
from calibrators.ranges.ranges import Range, Ranges
from calibrators.tensorrt.cache import (
    ALGORITHMS,
    CalibrationCache,
    cache_from_ranges,
    check_cache,
    read_cache,
    rewrite_header,
    version_number,
    write_cache,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1)
SCALES = st.floats(0, width=32, allow_nan=False)
CACHES = st.builds(
    CalibrationCache,
    version=st.from_regex(r"[0-9]{4,6}", fullmatch=True).filter(str.isascii),
    algorithm=st.sampled_from(ALGORITHMS),
    scales=st.dictionaries(NAMES, SCALES, max_size=6),
)


def ranges_of(**amax: float) -> Ranges:
    return Ranges(
        graph_hash="g",
        statistics_digest="s",
        method="mse",
        tensors={name: Range(amax=value, method="mse") for name, value in amax.items()},
        samples=1,
        preprocess=None,
    )


def test_exact_bytes() -> None:
    """The file that TensorRT 10.3 wrote on a Jetson, byte for byte."""
    cache = cache_from_ranges(
        ranges_of(images=1.0), version="10.3.0", algorithm="MinMaxCalibration"
    )
    assert write_cache(cache) == bytes.fromhex(
        "5452542d3130303330302d4d696e4d617843616c6962726174696f6e0a"
        "696d616765733a2033633031303230340a"
    )


@pytest.mark.parametrize(
    ("amax", "digits"),
    [(1.0, "3c010204"), (2.5, "3ca14285"), (4.0, "3d010204"), (6.0, "3d418306"), (127, "3f800000")],
)
def test_scales_in_hexadecimal(amax: float, digits: str) -> None:
    cache = cache_from_ranges(ranges_of(x=amax), version="8.6.1")
    assert write_cache(cache) == f"TRT-8601-EntropyCalibration2\nx: {digits}\n".encode()


@pytest.mark.parametrize(
    ("version", "digits"),
    [
        ("10.3.0", "100300"),
        ("10.16.1.11", "101601"),
        ("8.6.1", "8601"),
        ("8.5.3.1", "8503"),
        ("8.5.10", "8510"),
        ("7.1.3", "7103"),
        ("10.14.1.48.post1", None),
        ("10.3", None),
        ("", None),
    ],
)
def test_version_numbers(version: str, digits: str | None) -> None:
    if digits is None:
        with pytest.raises(InputError, match=f"TensorRT version '{version}'"):
            version_number(version)
    else:
        assert version_number(version) == digits


@given(cache=CACHES)
def test_write_then_read_is_the_identity(cache: CalibrationCache) -> None:
    again = read_cache(write_cache(cache))
    assert again == cache
    assert list(again.scales) == list(cache.scales)
    assert write_cache(again) == write_cache(cache)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"x: 3c010204", b"a:b c: 0", b"y: 7fc00000", b"z: -1", b"", b"\r"]),
    )
)
HEADERS = st.sampled_from(
    [b"TRT-100300-EntropyCalibration2", b"TRT-1-x", b"TRT-8600-\xff", b"data 2.64", b""]
)


@given(data=st.one_of(st.binary(), st.builds(lambda h, ls: b"\n".join([h, *ls]), HEADERS, LINES)))
def test_any_bytes_give_a_table_or_a_sentence(data: bytes) -> None:
    try:
        cache = read_cache(data)
    except ArtefactError as err:
        assert "expected" in str(err)  # noqa: PT017 - either outcome is right
    else:
        assert read_cache(write_cache(cache)) == cache


@pytest.mark.parametrize("pattern", ["*.cache", "*.bin"])
def test_files_that_nvidia_wrote_come_back_byte_for_byte(assets: Path, pattern: str) -> None:
    files = [path for path in (assets / "trt_caches").glob(pattern) if path.name.startswith("trt")]
    assert files
    for path in files:
        data = path.read_bytes()
        cache = read_cache(data)
        assert cache.version in path.name
        assert len(cache.scales) == data.count(b"\n") - 1
        assert write_cache(cache) == data


def test_onnxruntimes_table_is_explained(assets: Path) -> None:
    path = next((assets / "trt_caches").glob("ORT_text_range_table_*"))
    with pytest.raises(ArtefactError, match=r"starts with 'data 2.64.*onnxruntime's text table"):
        read_cache(path.read_bytes())


def test_real_names_and_odd_scales(assets: Path) -> None:
    gnmt = next((assets / "trt_caches").glob("*gnmt*")).read_bytes()
    scales = read_cache(gnmt).scales
    assert "Query Embedding Indices" in scales
    assert scales["(Unnamed Layer* 22) [Convolution]_output"] == float("inf")
    yolo = read_cache(next((assets / "trt_caches").glob("*yolov8*")).read_bytes())
    assert yolo.scales["/model.22/ConstantOfShape_1_output_0"] == 0.0


@given(amax=st.floats(1e-30, 1e30))
def test_scale_survives_the_way_through_a_cache(amax: float) -> None:
    ranges = ranges_of(x=amax)
    cache = read_cache(write_cache(cache_from_ranges(ranges, version="10.3.0")))
    assert cache.scales["x"] == ranges["x"].scale
    assert struct.pack(">f", cache.scales["x"]) == np.array(amax / 127, ">f4").tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRT-10-x\n", "starts with 'TRT-10-x'"),
        ("TRT-8600-EntropyCalibration2\nx 3c010204\n", "line 2 .* 'x 3c010204'"),
        ("TRT-8600-EntropyCalibration2\nx: 3c01020g\n", "line 2"),
        ("TRT-8600-EntropyCalibration2\nx: 123456789\n", "line 2"),
        ("TRT-8600-EntropyCalibration2\nx: 3c010204\nx: 3c010204\n", "line 3 .* second scale"),
        ("TRT-8600-EntropyCalibration2\nx: bc010204\n", "scale of tensor 'x' is -0.00"),
        ("TRT-8600-EntropyCalibration2\nx: 7fc00000\n", "scale of tensor 'x' is nan"),
        ("TRT-8600-EntropyCalibration2\nx: 3c0102", "ends within line 2"),
    ],
)
def test_damage_is_named(text: str, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        read_cache(text.encode())


@pytest.mark.parametrize("name", ["", "a\nb", "a\r", "\ud800"])
def test_names_that_no_line_can_hold_are_refused(name: str) -> None:
    with pytest.raises(ArtefactError, match="cannot stand in a calibration cache"):
        CalibrationCache(version="8601", algorithm="EntropyCalibration2", scales={name: 1.0})


@pytest.mark.parametrize("scale", [0.1, 1e300, -1.0, float("nan")])
def test_numbers_that_are_no_scale_are_refused(scale: float) -> None:
    with pytest.raises(ArtefactError, match=f"scale of tensor 'x' is {scale}".replace("+", r"\+")):
        CalibrationCache(version="8601", algorithm="EntropyCalibration2", scales={"x": scale})


def test_headers_of_others_are_refused_and_can_be_rewritten() -> None:
    cache = read_cache(b"TRT-8503-EntropyCalibration2\nx: 3c010204\n")
    check_cache(cache, version="8.5.3", algorithm="EntropyCalibration2")
    with pytest.raises(ArtefactError, match=r"written by TRT-8503-E.*expected TRT-100300-E"):
        check_cache(cache, version="10.3.0", algorithm="EntropyCalibration2")
    with pytest.raises(ArtefactError, match="rejects another algorithm"):
        check_cache(cache, version="8.5.3", algorithm="MinMaxCalibration")
    new = rewrite_header(cache, version="10.3.0", algorithm="MinMaxCalibration")
    assert write_cache(new) == b"TRT-100300-MinMaxCalibration\nx: 3c010204\n"
    with pytest.raises(InputError, match="algorithm 'Entropy', expected one of"):
        cache_from_ranges(ranges_of(x=1.0), version="10.3.0", algorithm="Entropy")
