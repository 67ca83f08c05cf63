"""Networks that the comparison with peers trains, and what every system is handed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from benchmarks.peers import trained_networks
from benchmarks.peers.accuracy_cases import CASES, Case
from benchmarks.peers.accuracy_systems import ending_softmax, read_feeds

CASE = Case(
    file="net",
    preprocess={},
    calibration=("net.npz", slice(0, 3)),
    evaluation=("net.npz", slice(3, 8)),
    trained=True,
)


def flat(path: Path) -> None:
    """A model without weights: (N, 4) → (N, 4)."""
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 4]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "net", [value[0]], [value[1]]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def test_assets_are_home_to_what_is_not_trained() -> None:
    assert CASES["ResNet-8"].home(Path("assets"), Path("folder")) == Path("assets")


def test_a_network_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    calls = []
    rows = rng.normal(size=(8, 4)).astype(np.float32)

    def train(assets: Path, folder: Path) -> None:
        calls.append(assets)
        flat(folder / "models" / "net.onnx")
        np.savez(folder / "net.npz", x=rows, labels=np.arange(8))

    monkeypatch.setitem(trained_networks.NETWORKS, "net", train)
    for _ in range(2):
        assert CASE.home(Path("assets"), tmp_path) == tmp_path
    assert calls == [Path("assets")]
    written = CASE.calibration_rows(tmp_path, CASE.model(tmp_path), tmp_path)
    feeds = read_feeds(written, tmp_path / "models" / "net.onnx")
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), rows[:3])


def test_every_trained_case_can_be_trained_and_evaluates_what_it_was_not_trained_on() -> None:
    trained = {case.file: case for case in CASES.values() if case.trained}
    assert trained.keys() == trained_networks.NETWORKS.keys()
    used = {
        "keyword_transformer": trained_networks.TRAINED_KEYWORDS,
        "digits_vit": trained_networks.TRAINED_DIGITS,
        "text_cnn": trained_networks.TRAINED_TEXTS,
    }
    assert {name: case.evaluation[1].start for name, case in trained.items()} == used
    assert all(case.calibration[1].stop <= used[name] for name, case in trained.items())


def test_only_a_softmax_that_ends_the_model_stays_in_float() -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"], name="attention"),
        helper.make_node("Softmax", ["a"], ["y"], name="ending"),
    ]
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "net", [value[0]], [value[1]]))
    assert [node.name for node in ending_softmax(model)] == ["ending"]
