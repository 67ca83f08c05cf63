"""What a sample is: found by running the float model on two of them, or as the flags say."""

from __future__ import annotations

from functools import cached_property

import onnx

import calibrators
import engines
import quantization
from artefacts.errors import ModelError
from calibrators.samples.axes import Axes, SampleAxes, check_axes, declared_axes
from calibrators.samples.independence import find_axes
from calibrators.samples.samples import InputSpec, declared_specs
from graphs.comparable import chosen_shapes, comparable_outputs, with_outputs
from graphs.identity import graph_hash
from graphs.view import GraphView
from pipeline.job import Data
from pipeline.samples import any_samples
from pipeline.screen import Screen
from quantization.measure.execution import Arrays, Run, load_int8, load_onnxruntime

__all__ = ["graph_passport", "settle_axes"]


def settle_axes(data: Data, model: onnx.ModelProto, screen: Screen) -> onnx.ModelProto:
    """The model with a note of which axis of each input counts samples.

    Args:
        data: the samples, and what is said of them.
        model: the graph that everything refers to.
        screen: where it is printed what a sample is, and how that is known.

    Raises:
        DataError: the data fits no reading, what its rows are is undecidable, or a flag names axes
            that the model does not have.
    """
    inputs = declared_specs(model)
    said = _said(data, inputs)
    if not data.learns and data.eval_data is None:
        return SampleAxes(axes=said or declared_axes(inputs)).note(model)
    found = find_axes(
        _LateRun(model),
        inputs,
        lambda specs: any_samples(data, specs),
        outputs=[value.name for value in model.graph.output],
        chosen=chosen_shapes(GraphView(model)),
        said=said,
    )
    noted = found.note(model)
    screen.add(f"{calibrators.say_axes(calibrators.input_specs(noted))} ({found.why})")
    return noted


def _said(data: Data, inputs: tuple[InputSpec, ...]) -> Axes | None:
    """What the flags say; None where they leave it open."""
    if not data.batch_axis and not data.whole_samples:
        return None
    check_axes(data.batch_axis, inputs)
    return {spec.name: data.batch_axis.get(spec.name) for spec in inputs}


def graph_passport(prepared: onnx.ModelProto) -> engines.Passport:
    """What a manifest says of a graph: its hash, and what a sample of it is."""
    inputs = calibrators.resolved(calibrators.input_specs(prepared))
    axes = {spec.name: spec.axis for spec in inputs}
    apart = all(spec.apart for spec in inputs)
    return engines.Passport(
        graph_hash=graph_hash(prepared),
        sample_axes=calibrators.SampleAxes(axes=axes, apart=apart).to_dict(),
    )


class _LateRun:
    """The float model, loaded when it is first run: many a model needs no trial."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model

    def __call__(self, feeds: Arrays) -> Arrays:
        return self._run(feeds)

    @cached_property
    def _run(self) -> Run:
        view = GraphView(self._model)
        names = dict.fromkeys((*comparable_outputs(view), *view.outputs))
        return _load(self._model, list(names))


def _load(model: onnx.ModelProto, outputs: list[str]) -> Run:
    if quantization.quantized_format(model) is None:
        return load_onnxruntime(model, outputs=outputs)
    model = with_outputs(model, outputs)
    try:
        return load_onnxruntime(quantization.strip(model).model)
    except ModelError:  # codes at the edge of the graph
        return load_int8(model)
