"""A model file: read whole, refused with a sentence, written whole; data stays in its folder."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, numpy_helper, parser

from artefacts.errors import ModelError
from graphs import external_data
from graphs import files as load
from graphs.identity import graph_hash
from graphs.tensor_data import tensor_bytes
from quantization import load_model, save_model
from quantization.measure.execution import load_onnxruntime


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    built = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        tiny (float[N,4] x) => (float[N,4] y) { h = MatMul (x, w) y = Add (h, b) }"""
    )
    for name, shape in (("w", (4, 4)), ("b", (4,))):
        value = rng.normal(size=shape).astype(np.float32)
        built.graph.initializer.append(numpy_helper.from_array(value, name))
    return built


@pytest.fixture
def external(model: onnx.ModelProto, tmp_path: Path) -> Path:
    """A model whose weights lie in weights.bin."""
    path = tmp_path / "model.onnx"
    onnx.save_model(  # it edits what it is given
        copy.deepcopy(model),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def relocate(path: Path, **keys: str) -> None:
    """Change where a model's tensors say that their data is."""
    edited = onnx.load(path, load_external_data=False)
    for tensor in edited.graph.initializer:
        found = {entry.key: entry.value for entry in tensor.external_data} | keys
        del tensor.external_data[:]
        for key, value in found.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(edited.SerializeToString())


def test_what_is_saved_is_loaded(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "new" / "model.onnx")
    assert load_model(tmp_path / "new" / "model.onnx") == model


def test_external_data_is_read(model: onnx.ModelProto, external: Path) -> None:
    loaded = load_model(external)
    assert graph_hash(loaded) == graph_hash(model)
    assert not external_data_helper.uses_external_data(loaded.graph.initializer[0])


def test_large_model_gets_a_data_file(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PROTOBUF_LIMIT_BYTES", 2**26)
    monkeypatch.setattr(external_data, "INLINE_BELOW_BYTES", 64)
    path = tmp_path / "model.onnx"
    before = model.SerializeToString()
    save_model(model, path)
    assert model.SerializeToString() == before
    data = [file for file in tmp_path.iterdir() if file.suffix == ".data"]
    assert len(data) == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert load_model(path) == model
    # Others read it too.
    assert onnx.load(path).graph.initializer[0].raw_data == model.graph.initializer[0].raw_data
    onnx.checker.check_model(path)


def test_a_large_model_runs_from_a_file(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    shapes = [[d.dim_value or 2 for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    feeds = {
        value.name: rng.normal(size=shape).astype(np.float32)
        for value, shape in zip(model.graph.input, shapes, strict=True)
    }
    wanted = load_onnxruntime(model)(feeds)
    monkeypatch.setattr(load, "PROTOBUF_LIMIT_BYTES", 2**26)
    monkeypatch.setattr(external_data, "INLINE_BELOW_BYTES", 64)
    assert not load.fits_one_file(model)
    found = load_onnxruntime(model)(feeds)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 JFIF", "JPEG"),
        (b"\x89PNG\r\n", "PNG"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\x1c\0\0\0TFL3 and more", "TensorFlow Lite"),
        (b"PK\x03\x04 data.pkl", "zip archive"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"ptrt\0\0\0\0", "TensorRT engine"),
        (bytes(range(256)), "not an ONNX file"),
        (b"just some words", "not an ONNX file"),
        (b"\x08\x07", "not an ONNX file"),  # a valid message without a graph
    ],
)
def test_other_files_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=what) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        load_model(tmp_path)


def test_truncated_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = model.SerializeToString()
    path.write_bytes(data[:-7])
    with pytest.raises(ModelError, match=rf"truncated one \({len(data) - 7} bytes\).*copy"):
        load_model(path)


@given(cut=st.integers(min_value=1, max_value=400))
@settings(max_examples=40, deadline=None)
def test_every_cut_is_a_sentence(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    built = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> t (float[4] x) => (float[4] y) '
        "<float[4] w = {1,2,3,4}> { y = Add (x, w) }"
    )
    data = built.SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "model.onnx"
    path.write_bytes(data[: len(data) - min(cut, len(data))])
    with pytest.raises(ModelError):
        load_model(path)


def test_newer_versions_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model.ir_version = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=rf"IR version 99, expected at most {onnx.IR_VERSION}"):
        load_model(path)
    model.ir_version, model.opset_import[0].version = 8, 999
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="opset 999, expected at most"):
        load_model(path)


def test_missing_external_file(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights\.bin', which is missing"):
        load_model(external)


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "..\\weights.bin", "C:\\w.bin", ""],
)
def test_paths_outside_the_folder_are_refused(location: str, external: Path) -> None:
    (external.parent.parent / "weights.bin").write_bytes(bytes(64))
    relocate(external, location=location)
    with pytest.raises(ModelError, match=r"expected a (path inside|file name)") as caught:
        load_model(external)
    assert repr(location) in str(caught.value)


def test_link_out_of_the_folder_is_refused(external: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.bin"
    outside.write_bytes(bytes(64))
    (external.parent / "weights.bin").unlink()
    (external.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(ModelError, match="a link that leaves the model's folder"):
        load_model(external)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"offset": "40"}, "reads bytes 40 to 104 of weights.bin, found a file of 80 bytes"),
        ({"offset": "-1"}, "reads bytes -1"),
        ({"length": str(2**40)}, "found a file of 80 bytes"),
        ({"length": "many"}, "length 'many', expected whole numbers"),
        ({"length": "8"}, "holds 8 bytes, expected 64"),
    ],
)
def test_bad_external_numbers(keys: dict[str, str], message: str, external: Path) -> None:
    relocate(external, **keys)
    with pytest.raises(ModelError, match=message):
        load_model(external)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([4, 5], r"shape \[4, 5\] holds 64 bytes, expected 80"),
        ([2**40, 2**40], "holds 64 bytes"),
        ([-4, -4], "negative dimension"),
    ],
)
def test_tensor_that_does_not_fit_its_shape(
    dims: list[int], message: str, model: onnx.ModelProto, tmp_path: Path
) -> None:
    model.graph.initializer[0].dims[:] = dims
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    "data_type", sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED})
)
def test_sizes_agree_with_onnx(data_type: int) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    array = (
        np.array([b"a"] * 7, object)
        if data_type == TensorProto.STRING
        else np.ones(7).astype(dtype)
    )
    tensor = numpy_helper.from_array(array, "t")
    load._check_size(tensor, Path("m"))
    if data_type != TensorProto.STRING:
        assert tensor_bytes(tensor) == len(tensor.raw_data)


def test_axis_of_minus_one_is_dynamic(model: onnx.ModelProto, tmp_path: Path) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = -1
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    dim = load_model(path).graph.input[0].type.tensor_type.shape.dim[0]
    assert not dim.HasField("dim_value")
    dims[0].dim_value = 2**50
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"axis of {2**50}, expected at most"):
        load_model(path)


def test_names_that_are_not_text_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(b"MatMul", b"Mat\xb6ul"))
    with pytest.raises(ModelError, match=r"op_type of b'Mat\\xb6ul', expected UTF-8"):
        load_model(path)
