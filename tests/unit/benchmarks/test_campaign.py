from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artefacts.errors import DataError
from benchmarks.campaign import run_campaign
from benchmarks.campaign_plan import Plan
from benchmarks.latency import ScenarioRules, TimingRules
from benchmarks.machine import MemoryResult
from benchmarks.report.document import LayerReport, Report, TensorReport
from benchmarks.systems import System
from calibrators.samples.data import InputSpec, Samples, open_samples
from tests.unit.benchmarks.made import kernel

RULES = TimingRules(
    warmup_s=0.001,
    warmup_limit_s=0.002,
    min_time_s=0.01,
    limit_s=0.01,
    slice_s=0.0005,
    min_samples=5,
    min_rounds=6,
)
PLAN = Plan(command="test", rules=RULES, scenario_rules=ScenarioRules(), energy_s=0.0)


class Classifier:
    """Answers its input, and remembers the batches it was asked for."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.batches: Counter[int] = Counter()

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        scores = inputs["x"].reshape(len(inputs["x"]), -1)
        self.batches[len(scores)] += 1
        return {"y": scores + np.float32(self.noise) * np.sin(40 * scores)}


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Ten one-hot samples with their class."""
    np.savez(tmp_path / "s.npz", x=np.eye(10, dtype=np.float32), labels=np.arange(10))
    return open_samples(tmp_path / "s.npz", inputs=[spec()])


def spec(batch: int | None = None) -> InputSpec:
    return InputSpec(name="x", dtype=np.dtype(np.float32), shape=(batch, 10))


def system(folder: Path, name: str, call: Any, **changes: Any) -> System:
    (folder / name).write_bytes(name.encode())
    plain = System(
        name=name,
        path=folder / name,
        call=call,
        inputs=(spec(),),
        target="cpu",
        precision="int8" if "int8" in name else "fp32",
    )
    return replace(plain, **changes)


def run(systems: list[System], samples: Samples, plan: Plan = PLAN) -> tuple[Report, list[str]]:
    said: list[str] = []
    return run_campaign(systems, samples, plan, said.append), said


def test_how_long_latency_takes_is_said_first(tmp_path: Path, samples: Samples) -> None:
    rules = replace(RULES, min_time_s=0.3, warmup_s=0.2, warmup_limit_s=5.0, limit_s=0.8)
    systems = [system(tmp_path, name, Classifier()) for name in ("a", "b")]
    _, said = run(systems, samples, replace(PLAN, rules=rules))
    assert said[1].endswith(": 1 s where they are steady, at most 12 s")  # 2 × 0.5 and 2 × 5.8


def test_a_campaign_tells_its_steps_and_reports_them(tmp_path: Path, samples: Samples) -> None:
    layers = (
        LayerReport(name="a", op_type="Conv", precision="int8", macs=9, promised=True),
        LayerReport(name="b", op_type="Gemm", precision="fp32", macs=1),
    )
    int8 = system(
        tmp_path,
        "int8",
        Classifier(noise=0.01),
        layers=layers,
        device_times=lambda feed: {"h2d_ms": 0.1, "compute_ms": 0.5, "d2h_ms": 0.05},
        layer_times=lambda feed: [
            kernel("k0", "Convolution", "int8", 0.3, "relu", "a"),
            kernel("k1", "Convolution", "int8", 0.1, "a", "b"),
            kernel("k2", "Reorder", "int8", 1.0),
        ],
        graphs=lambda: (tmp_path / "float.onnx", tmp_path / "int8.onnx"),
    )
    simulated: list[object] = []

    def simulate(*given: object) -> tuple[TensorReport, ...]:
        simulated.extend(given)
        found = ("b_output", "b", "Gemm", 20.0, None, 7), ("a_output", "a", "Conv", 30.0, 35.0, 3)
        return tuple(
            TensorReport(
                tensor=tensor, node=node, op_type=op, sqnr_db=sqnr, own_sqnr_db=own, position=place
            )
            for tensor, node, op, sqnr, own, place in found
        )

    memory = MemoryResult(load_ms=1, first_ms=1, host_peak_bytes=10, host_growth_bytes=5)
    report, said = run(
        [system(tmp_path, "fp32", Classifier()), int8],
        samples,
        replace(PLAN, probe=lambda path: memory, command="the command", simulate=simulate),
    )
    assert [line.split()[0] for line in said] == ["accuracy", "latency", "tensors"]
    first, second = report.systems
    assert first.accuracy is not None
    assert first.accuracy.value == 1.0
    assert second.accuracy is not None
    assert second.accuracy.agreement is not None
    assert second.accuracy.agreement.outputs["y"].sqnr_db is not None
    assert second.device["compute_ms"].value == 0.5
    # Two kernels compute a; the one that fuses b with it counts for a, which it names first.
    assert [layer.time_ms for layer in second.layers] == [0.4, None]
    assert [entry.name for entry in second.kernels] == ["k0", "k1", "k2"]
    assert [layer.sqnr_db for layer in second.layers] == [30.0, 20.0]
    assert [tensor.tensor for tensor in second.tensors] == ["a_output", "b_output"]
    assert first.tensors == ()
    float_graph, int8_graph, feeds = simulated
    assert (float_graph, int8_graph) == (tmp_path / "float.onnx", tmp_path / "int8.onnx")
    assert isinstance(feeds, list)
    assert [feed["x"].shape for feed in feeds] == [(1, 10)] * 10
    assert second.int8_mac_share == 0.9
    assert second.memory == memory
    assert report.command == "the command"
    assert report.comparisons[0].accuracy is not None
    assert any("rests on 10 samples" in warning for warning in report.warnings)


def test_every_query_has_the_whole_batch(tmp_path: Path, samples: Samples) -> None:
    call = Classifier()
    run([system(tmp_path, "fp32", call)], samples, replace(PLAN, batches=(3, 16)))
    # 1 by one for accuracy and latency; batches of 3 (never the tenth alone), 16 from 10 samples
    assert set(call.batches) == {1, 3, 16}


def test_scenarios_count_images(tmp_path: Path, samples: Samples) -> None:
    pytest.importorskip("mlperf_loadgen")
    rules = ScenarioRules(seconds=0.02, min_queries=5, images_per_query=8)
    plan = replace(PLAN, batch=4, scenarios=("MultiStream",), scenario_rules=rules)
    free, fixed = Classifier(), Classifier()
    report, _ = run([system(tmp_path, "fp32", free)], samples, plan)
    # 8 images in two calls of 4; accuracy and latency use batches of 4 as well (and the last 2)
    assert set(free.batches) == {4, 2}
    assert report.scenarios[0].images_per_query == 8
    report, _ = run([system(tmp_path, "fp32", fixed, inputs=(spec(2),))], samples, plan)
    assert set(fixed.batches) == {2}
    assert report.scenarios[0].images_per_query == 16


def test_a_fixed_batch_wins(tmp_path: Path, samples: Samples) -> None:
    call = Classifier()
    fixed = system(tmp_path, "fp32", call, inputs=(spec(4),))
    report, said = run([fixed], samples, replace(PLAN, batches=(1, 2)))
    assert set(call.batches) == {4}
    assert report.systems[0].latency.batch == 4
    assert report.sweeps == ()
    assert "0 systems" in said[-1]


def test_calibrated_samples_stop_a_campaign(tmp_path: Path, samples: Samples) -> None:
    digests = [sample.digest for sample in samples][3:5]
    system_ = system(tmp_path, "int8", Classifier(), passport={"calibration_samples": digests})
    with pytest.raises(DataError, match=r"s\.npz#3 is one of the calibration samples of int8"):
        run([system_], samples)


def test_threads_get_callers_of_their_own(tmp_path: Path, samples: Samples) -> None:
    cloned: list[Classifier] = []

    def clone() -> Classifier:
        cloned.append(Classifier())
        return cloned[-1]

    able = system(tmp_path, "a", Classifier(), clone=clone)
    unable = system(tmp_path, "b", Classifier())
    report, _ = run([able, unable], samples, replace(PLAN, threads=(1, 2)))
    assert {(p.system, p.size) for p in report.sweeps} == {("a", 1), ("a", 2)}
    assert len(cloned) == 2
    assert all(clone.batches for clone in cloned)
