from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from artefacts.errors import BuilderError, GateMissedError, InputError, MissingLibraryError
from artefacts.files import read_bounded, replace_atomic, sha256_bytes, sha256_file, write_atomic
from artefacts.libraries import require
from graphs.identity import graph_hash


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, b"old")

    def interrupted() -> None:
        with replace_atomic(path) as part:
            part.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.json"]  # noqa: PTH208 - names, hidden ones included


def test_written_files_are_readable_by_others_as_the_umask_allows(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "x", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_folders_are_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "x", b"1")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=re.escape(f"output folder {tmp_path / 'file'} is not")):
        write_atomic(tmp_path / "file" / "x", b"1")


def test_read_bounded_refuses_large_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bounded(path, limit_bytes=5, what="ranges") == b"12345"
    with pytest.raises(InputError, match=r"ranges .*x has 5 bytes, expected at most 4"):
        read_bounded(path, limit_bytes=4, what="ranges")
    with pytest.raises(InputError, match=r"ranges .*y does not exist"):
        read_bounded(tmp_path / "y", limit_bytes=4, what="ranges")


def test_hashes_agree_with_hashlib(tmp_path: Path, rng: np.random.Generator) -> None:
    data = rng.bytes(3_000_000)
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_missing_library_names_the_extra() -> None:
    with pytest.raises(MissingLibraryError, match=re.escape("pip install '.[cpu]'")):
        require("no_such_library_here", extra="cpu")
    assert require("json", extra="cpu").loads("1") == 1


def test_exit_codes() -> None:
    assert BuilderError.exit_code == 2
    assert GateMissedError.exit_code == 1


def model(*, name: str = "relu", doc: str = "") -> onnx.ModelProto:
    info = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name=name, doc_string=doc)
    graph = onnx.helper.make_graph(
        [node],
        "g" + doc,
        [info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [info("y", onnx.TensorProto.FLOAT, ["N", 4])],
    )
    return onnx.helper.make_model(graph, producer_name=doc)


def test_graph_hash_sees_names_and_not_remarks(tmp_path: Path) -> None:
    plain = model()
    remarked = model(doc="exported on a Tuesday")
    onnx.helper.set_model_props(remarked, {"author": "someone"})
    assert graph_hash(plain) == graph_hash(remarked)
    assert graph_hash(plain) != graph_hash(model(name="other"))
    onnx.save(plain, tmp_path / "m.onnx")
    assert graph_hash(onnx.load(tmp_path / "m.onnx")) == graph_hash(plain)
    assert remarked.graph.node[0].doc_string == "exported on a Tuesday"
