from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from artefacts.errors import DataError, ModelError, RequestError
from artefacts.files import sha256_file
from benchmarks.accuracy.overlap import refuse_calibration_samples
from benchmarks.arguments import limits_of, parse_arguments, plan_of
from benchmarks.graph_files import find_graphs
from benchmarks.onnx_nodes import name_nodes, weighted_nodes
from benchmarks.onnx_system import OnnxSystem, parse_profile
from benchmarks.systems import System, check_same_inputs, likeness, query_of, unique_names
from calibrators.samples.data import InputSpec, Sample
from graphs.identity import graph_hash
from tests.unit.benchmarks.made import kernel


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["out/a.fp32.engine", "out/a.int8.engine"], ["a.fp32", "a.int8"]),
        (["fp32/a.engine", "int8/a.engine"], ["fp32/a", "int8/a"]),
        (["a.onnx", "out/a.engine"], ["/a", "out/a"]),
        (["x/a.engine", "x/a.engine"], ["x/a", "x/a (2)"]),
    ],
)
def test_names_are_short_and_unique(paths: list[str], names: list[str]) -> None:
    found = unique_names([Path(path) for path in paths])
    assert found == names
    assert len(set(found)) == len(found)


def system(name: str, *specs: InputSpec) -> System:
    return System(
        name=name,
        path=Path(name),
        call=dict,
        inputs=specs,
        target="cpu",
        precision="fp32",
    )


def spec(name: str, dtype: str = "float32", batch: int | None = None) -> InputSpec:
    return InputSpec(name=name, dtype=np.dtype(dtype), shape=(batch, 3))


def test_systems_of_other_models_are_refused() -> None:
    check_same_inputs([system("a", spec("x")), system("b", spec("x", batch=1))])
    with pytest.raises(DataError, match="b has the inputs y float32, expected x float32 as a"):
        check_same_inputs([system("a", spec("x")), system("b", spec("y"))])
    with pytest.raises(DataError, match="x float16"):
        check_same_inputs([system("a", spec("x")), system("b", spec("x", "float16"))])


def test_a_fixed_batch_cannot_be_swept() -> None:
    assert system("a", spec("x")).free_batch
    assert not system("a", spec("x", batch=1)).free_batch


def test_queries_cycle_through_different_samples() -> None:
    feeds = [{"x": np.array([i])} for i in range(3)]
    query = query_of(dict, feeds)
    assert [int(query()["x"][0]) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_calibration_samples_do_not_count_as_a_test() -> None:
    samples = [Sample(inputs={"x": np.full((1, 2), i)}, name=f"{i}.png") for i in range(5)]
    assert len(list(refuse_calibration_samples(samples, {"a": []}))) == 5
    with pytest.raises(DataError, match=r"3\.png is one of the calibration samples of int8"):
        list(refuse_calibration_samples(samples, {"fp32": [], "int8": [samples[3].digest]}))


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "tiny.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "tiny.onnx"


def test_plain_onnx_is_a_system(onnx_file: Path) -> None:
    model = OnnxSystem(onnx_file)
    assert str(model.inputs[0]) == "x float32 [?, 3]"
    assert model.precision == "fp32"
    assert model({"x": np.float32([[-1, 0, 2]])})["y"].tolist() == [[0, 0, 2]]
    (kernel,) = model.layer_times({"x": np.zeros((1, 3), np.float32)})
    assert (kernel.name, kernel.kind, kernel.nodes) == ("relu", "Relu", ("relu",))
    with pytest.raises(RequestError, match=r"expected x float32 \[\?, 3\]"):
        model({"x": np.zeros((1, 4), np.float32)})


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"bad\.onnx cannot be loaded"):
        OnnxSystem(tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        OnnxSystem(tmp_path / "none.onnx")


def test_profiles_of_onnxruntime_are_read() -> None:
    # The form of onnxruntime 1.20 to 1.31, shortened.
    events = json.loads(
        '[{"cat": "Session", "name": "model_run", "dur": 90},'
        '{"cat": "Node", "name": "conv_fence_before", "dur": 1},'
        '{"cat": "Node", "name": "conv_kernel_time", "dur": 40, "args": {"op_name": "Conv"}},'
        '{"cat": "Node", "name": "conv_kernel_time", "dur": 60, "args": {"op_name": "Conv"}},'
        '{"cat": "Node", "name": "fc_kernel_time", "dur": 20, "args": {"op_name": "Gemm"}}]'
    )
    found = [(kernel.kind, kernel.nodes, kernel.time_ms) for kernel in parse_profile(events)]
    assert found == [("Conv", ("conv",), 0.05), ("Gemm", ("fc",), 0.02)]


def test_fused_kernels_are_led_back_to_their_weighted_node() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"], name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w"], ["c2"]),
        helper.make_node("Add", ["c2", "r1"], ["sum"], name="add"),
        helper.make_node("Softmax", ["sum"], ["y"], name="softmax"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    kernels = (
        kernel("r1_nchwc", "Conv", "unknown", 0.1),
        kernel("fused c2", "FusedConv", "unknown", 0.2),
        kernel("ReorderOutput_token_3", "ReorderOutput", "unknown", 0.3),
        kernel("softmax", "Softmax", "unknown", 0.4),
        kernel("sum_nchwc", "Conv", "unknown", 0.5),
        kernel("conv1/MatMulAddFusion", "Gemm", "unknown", 0.6),
    )
    found = [entry.nodes for entry in name_nodes(model, kernels)]
    assert found == [
        ("conv1", "relu1"),
        ("Conv:c2",),
        (),
        ("softmax",),
        ("Conv:c2", "add"),
        ("conv1",),
    ]
    assert [layer.name for layer in weighted_nodes(model)] == ["conv1", "Conv:c2"]


@pytest.fixture
def beside(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An engine's folder with the graphs that it came from, and its manifest's words on them."""
    prepared, improved, int8 = (network(scale) for scale in (1.0, 1.5, 2.0))
    onnx.save(prepared, tmp_path / "m.prepared.onnx")
    onnx.save(improved, tmp_path / "m.improved.onnx")
    onnx.save(int8, tmp_path / "m.int8.onnx")
    (tmp_path / "broken.prepared.onnx").write_bytes(b"no model")
    source = {
        "name": "m.int8.onnx",
        "sha256": sha256_file(tmp_path / "m.int8.onnx"),
        "graph_hash": graph_hash(prepared),
        "improved_graph_hash": graph_hash(improved),
    }
    return tmp_path / "m.engine", source


def network(scale: float) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    factor = helper.make_tensor("s", TensorProto.FLOAT, [1], [scale])
    node = helper.make_node("Mul", ["x", "s"], ["y"], name="mul")
    return helper.make_model(helper.make_graph([node], "g", [value], [result], [factor]))


def test_graphs_beside_an_engine_are_found_by_their_hashes(
    beside: tuple[Path, dict[str, str]],
) -> None:
    engine, source = beside
    improved, int8 = engine.parent / "m.improved.onnx", engine.parent / "m.int8.onnx"
    assert find_graphs(engine, source) == (improved, int8)
    plain = {key: value for key, value in source.items() if key != "improved_graph_hash"}
    assert find_graphs(engine, plain) == (engine.parent / "m.prepared.onnx", int8)
    # A folder in the name does not lead out of the engine's.
    assert find_graphs(engine, source | {"name": "/elsewhere/m.int8.onnx"}) == (improved, int8)


@pytest.mark.parametrize(
    "change", [{"sha256": "0" * 64}, {"name": "other.onnx"}, {"improved_graph_hash": "0" * 64}]
)
def test_graphs_of_another_hash_are_not_read(
    beside: tuple[Path, dict[str, str]], change: dict[str, str]
) -> None:
    engine, source = beside
    assert find_graphs(engine, source | change) is None


def test_an_engine_of_unknown_origin_has_no_graphs(tmp_path: Path) -> None:
    assert find_graphs(tmp_path / "m.engine", {}) is None


def test_flags_make_a_plan() -> None:
    words = "a.engine b.engine --data d --duration 2 --batches 1,8 --scenario Server --rate 50"
    plan = plan_of(parse_arguments(words.split()), words.split())
    assert plan.rules.min_time_s == 2.0
    assert plan.batches == (1, 8)
    assert plan.scenarios == ("Server",)
    assert plan.scenario_rules.rate_per_s == 50
    assert not plan.search_rate
    assert plan.command == f"python -m benchmarks {words}"
    assert limits_of(parse_arguments([*words.split(), "--max-drop", "0.5"])).max_drop == 0.5


@pytest.mark.parametrize("word", ["--batches=0", "--batches=a", "--scenario=Interactive"])
def test_flags_that_make_no_sense_are_refused(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["a.engine", "--data", "d", word])
    assert caught.value.code == 2
    assert word.partition("=")[0] in capsys.readouterr().err


def test_a_metric_is_named_by_file_and_function(tmp_path: Path) -> None:
    (tmp_path / "metric.py").write_text("def peak(outputs, label):\n    return 1.0\n")

    def plan(metric: str) -> object:
        words = ["a.engine", "--data", "d", "--metric", metric]
        return plan_of(parse_arguments(words), words).task

    task = plan(f"{tmp_path}/metric.py:peak")
    assert task.score({}, None) == 1.0  # type: ignore[attr-defined]
    for bad, said in ((f"{tmp_path}/metric.py:dip", "no function dip"), ("peak", "FILE.py:FUN")):
        with pytest.raises(DataError, match=said):
            plan(bad)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (
            {
                "FP32 ONNX": {"top1": 0.9},
                "INT8 engine": {"sqnr_db": 39.26},
                "INT8 ONNX": {"sqnr_db": 38.94},
            },
            {"against FP32": "engine 39.3 dB, graph 38.9 dB"},
        ),
        ({"INT8 engine": {"sqnr_db": 39.26}, "INT8 ONNX": {"sqnr_db": None}}, {}),
        ({}, {}),
    ],
)
def test_engine_and_graph_stand_side_by_side(measured: dict, said: dict[str, str]) -> None:
    assert likeness({"accuracy": measured}) == said
