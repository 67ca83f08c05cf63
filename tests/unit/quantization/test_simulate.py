"""The simulator's numbers against float64 formulas, and its reports."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from artefacts.errors import ArtefactError, DataError
from quantization import prepare
from quantization.measure.simulate import TensorError, simulate
from quantization.measure.simulate_report import simulation_json, simulation_plot, simulation_text
from tests.networks import NETWORKS
from tests.observed import quantized, random_feeds
from tests.odd_models import Feeds, run


@pytest.fixture(scope="module")
def models() -> tuple[onnx.ModelProto, onnx.ModelProto, list[Feeds]]:
    rng = np.random.default_rng()
    model = prepare(NETWORKS["mobilenet_v2"]())
    samples = [random_feeds(model, rng) for _ in range(3)]
    return model, quantized(model, samples[0]), samples


def test_output_error_is_the_formula(models: tuple) -> None:
    model, int8, samples = models
    name = model.graph.output[0].name
    found = {error.tensor: error for error in simulate(model, int8, samples)}[name]
    x = np.concatenate([run(model, feeds)[0].astype(float) for feeds in samples])
    y = np.concatenate([run(int8, feeds)[0].astype(float) for feeds in samples])
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.sum(x**2) / np.sum((x - y) ** 2)))
    cosine = np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)
    assert found.cosine == pytest.approx(cosine)


def test_worst_is_first_and_every_tensor_is_there(models: tuple) -> None:
    model, int8, samples = models
    errors = simulate(model, int8, samples)
    assert [e.sqnr_db for e in errors] == sorted(e.sqnr_db for e in errors)
    made = {name for node in model.graph.node for name in node.output}
    assert made <= {error.tensor for error in errors}
    assert {error.op_type for error in errors if error.position < 0} == {"input"}


def test_own_error_of_the_input_is_its_rounding(models: tuple) -> None:
    model, int8, samples = models
    (name,) = samples[0]
    found = {error.tensor: error for error in simulate(model, int8, samples)}[name]
    scale = next(
        float(onnx.numpy_helper.to_array(t))
        for t in int8.graph.initializer
        if t.name == f"{name}_scale"
    )
    x = np.concatenate([feeds[name].astype(float) for feeds in samples])
    rounded = np.clip(np.rint(x / scale), -128, 127) * scale
    expected = 10 * np.log10(np.sum(x**2) / np.sum((x - rounded) ** 2))
    assert found.own_sqnr_db == pytest.approx(expected)
    assert math.isinf(found.sqnr_db)  # the input itself is the same in both graphs


def test_equal_models_have_no_error(models: tuple) -> None:
    model, _, samples = models
    errors = simulate(model, model, samples[:1])
    assert all(math.isinf(error.sqnr_db) and error.cosine == pytest.approx(1) for error in errors)


def test_samples_of_several_calls_add_up(models: tuple) -> None:
    model, int8, samples = models
    assert simulate(model, int8, samples) == simulate(model, int8, iter(samples))


def test_another_float_model_is_refused(models: tuple) -> None:
    _, int8, samples = models
    with pytest.raises(ArtefactError, match=r"was made from graph .*give the float model"):
        simulate(NETWORKS["resnet_basic"](), int8, samples)


def test_no_samples_are_refused(models: tuple) -> None:
    model, int8, _ = models
    with pytest.raises(DataError, match="no samples"):
        simulate(model, int8, [])


_ERRORS = (
    TensorError(
        tensor="a", op_type="Conv", sqnr_db=12.34, cosine=0.9, own_sqnr_db=None, position=1
    ),
    TensorError(
        tensor="b", op_type="Relu", sqnr_db=math.inf, cosine=1, own_sqnr_db=30.0, position=0
    ),
)


def test_text_lists_the_worst_first() -> None:
    lines = simulation_text(_ERRORS, limit=1).splitlines()
    assert "12.3" in lines[1]
    assert lines[1].endswith("a")
    assert lines[2] == "and 1 better ones"


def test_json_is_valid_without_infinities() -> None:
    rows = json.loads(simulation_json(_ERRORS))
    assert rows[0]["sqnr_db"] == 12.34
    assert rows[1]["sqnr_db"] is None


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_plot_is_a_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"errors.{ending}"
    simulation_plot(_ERRORS, path)
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)
