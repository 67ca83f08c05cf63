from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artefacts.errors import EngineError
from engines import (
    Int8Coverage,
    Manifest,
    NodeCoverage,
    Passport,
    Profile,
    TensorSpec,
    add_measured,
)
from engines.manifest import manifest_path, read_manifest

HASH = "0123456789abcdef" * 4


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "engine_sha256": HASH,
        "engine_bytes": 12,
        "target": "cpu",
        "precision": "int8",
        "onnx": {"name": "model.onnx", "sha256": HASH, "external": {}},
        "library": {"name": "openvino", "version": "2026.4"},
        "device": {"name": "a CPU", "capabilities": ["INT8"], "requirements": None},
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(None, 3)),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=(None, 1)),),
        "profiles": (Profile(min={"x": (1, 3)}, opt={"x": (2, 3)}, max={"x": (4, 3)}),),
        "options": {"tf32": None},
        "build": {"seconds": 0.1},
        "coverage": Int8Coverage(
            source="test",
            nodes=(
                NodeCoverage(name="a", op_type="Conv", promised=True, precision="int8", macs=30),
                NodeCoverage(
                    name="b",
                    op_type="Conv",
                    promised=True,
                    precision="fp32",
                    macs=10,
                    aliases=("b_output", "c"),
                ),
            ),
        ),
        "passport": Passport(preprocess={"size": [3]}, labels=("eins", "zwölf")),
    }
    return Manifest(**(fields | changes))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", max_size=3), inner),
    max_leaves=10,
)


def test_round_trip() -> None:
    made = manifest()
    assert Manifest.from_bytes(made.to_bytes()) == made


@given(st.dictionaries(st.sampled_from(["note", "weights", "more"]), JSON_VALUES))
@settings(max_examples=30, deadline=None)
def test_any_plain_passport_round_trips(extra: dict[str, Any]) -> None:
    raw = manifest(passport=Passport(more=extra)).to_bytes()
    assert Manifest.from_bytes(raw).to_bytes() == raw


def test_the_file_is_readable_json_with_its_version_and_digest() -> None:
    data = json.loads(manifest().to_bytes())
    assert data["manifest"] == 1
    assert len(data["digest"]) == 64
    assert data["passport"]["labels"] == ["eins", "zwölf"]


def test_every_flipped_bit_is_found() -> None:
    raw = manifest(passport=Passport(more={"tiny": 1e-05, "text": "é"})).to_bytes()
    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(EngineError):
            Manifest.from_bytes(bytes(flipped))
    for position in range(200):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            with pytest.raises(EngineError):
                Manifest.from_bytes(bytes(flipped))


@pytest.mark.parametrize(
    ("written", "same"),
    [(b"1e-05", b"1E-05"), (b'"tiny": ', b'"tiny":  '), (b'"tiny"', b'"\\u0074iny"')],
)
def test_bytes_that_mean_the_same_are_found_too(written: bytes, same: bytes) -> None:
    raw = manifest(passport=Passport(more={"tiny": 1e-05})).to_bytes()
    assert written in raw
    with pytest.raises(EngineError, match="was altered"):
        Manifest.from_bytes(raw.replace(written, same))


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_garbage_is_an_engine_error(raw: bytes) -> None:
    with pytest.raises(EngineError):
        Manifest.from_bytes(raw)


@pytest.mark.parametrize("raw", [b"[]", b"1", b'"x"', b"{}", b"[" * 100_000, b"null"])
def test_json_that_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(EngineError, match=r"not valid|no JSON"):
        Manifest.from_bytes(raw)


def test_truncated_at_every_length() -> None:
    raw = manifest().to_bytes()
    for length in range(0, len(raw), 7):
        with pytest.raises(EngineError):
            Manifest.from_bytes(raw[:length])


def test_edited_content_is_altered_even_when_valid() -> None:
    data = json.loads(manifest().to_bytes())
    data["passport"]["labels"][0] = "zwei"
    raw = (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    with pytest.raises(EngineError, match="was altered") as caught:
        Manifest.from_bytes(raw, "manifest m.json")
    assert str(caught.value).startswith("manifest m.json was altered")


def test_newer_schema_says_so() -> None:
    raw = manifest().to_bytes().replace(b'"manifest": 1', b'"manifest": 2')
    with pytest.raises(EngineError, match="schema version 2, expected at most 1"):
        Manifest.from_bytes(raw)


def test_schema_names_the_place_of_a_wrong_field() -> None:
    with pytest.raises(EngineError, match="not valid at onnx/sha256"):
        manifest(onnx={"name": "m", "sha256": "no hash", "external": {}}).to_bytes()
    with pytest.raises(EngineError, match="not valid at passport/samples"):
        manifest(passport=Passport(samples=-1)).to_bytes()


@pytest.mark.parametrize("name", ["../m.onnx", "a/b.onnx", "a\\b.onnx", "a\nb", ""])
def test_file_names_have_no_folders(name: str) -> None:
    with pytest.raises(EngineError, match="not valid at onnx/name"):
        manifest(onnx={"name": name, "sha256": HASH, "external": {}}).to_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_json_cannot_hold_is_refused_on_write(value: object) -> None:
    with pytest.raises(EngineError, match="manifest cannot be written"):
        manifest(passport=Passport(more={"value": value})).to_bytes()


def test_results_are_added_later_and_the_rest_stays(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    manifest_path(engine).write_bytes(manifest().to_bytes())
    add_measured(engine, accuracy={"top1": 0.5})
    add_measured(engine, latency={"p50_ms": 1.25})
    found = read_manifest(engine)
    assert found.measured == {"accuracy": {"top1": 0.5}, "latency": {"p50_ms": 1.25}}
    assert found.passport == manifest().passport
    assert [p.name for p in tmp_path.iterdir()] == ["m.engine.json"]


def test_a_missing_manifest_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no manifest m\.engine\.json beside it"):
        read_manifest(tmp_path / "m.engine")
