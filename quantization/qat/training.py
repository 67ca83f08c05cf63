"""Quantization-aware training in PyTorch, with TensorRT's placement, ending in a Q/DQ ONNX model.

    model = qat.prepare(float_model, (images[:2],), ranges=Ranges.load("model.ranges.json"))
    ...                        # the training loop of the float model, with a small learning rate
    qat.freeze_ranges(model)   # after some epochs
    qat.freeze_batchnorm(model)
    qat.export_onnx(model, "model.qat.onnx")   # python build_engine.py --onnx model.qat.onnx ...

Needs the extra ``qat``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper

from artefacts.errors import ArtefactError, InputError
from calibrators.ranges.ranges import SMALLEST_AMAX, Range, Ranges
from graphs.files import save_model
from graphs.identity import graph_hash
from quantization.placement import Placement, Profile
from quantization.prepare.prepare import prepare as prepare_onnx
from quantization.qat.capture import capture
from quantization.qat.edges import decide, edges_of
from quantization.qat.modules import activation_quantizer, batch_norm
from quantization.qat.quantizer import insert_fake_quantizers
from quantization.write.insert import insert_qdq

if TYPE_CHECKING:
    import torch

__all__ = ["export_float", "export_onnx", "freeze_batchnorm", "freeze_ranges", "prepare"]

_RECORD = "tensorrt_qat"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Record:
    """What export needs to know of a prepared network; kept in its ``meta``.

    Attributes:
        model: the captured ONNX model; its initializers have the parameters' names.
        placement: on that model, prepared.
        quantizers: observed tensor → name of its fake quantizer in the network.
    """

    model: onnx.ModelProto
    placement: Placement
    quantizers: dict[str, str]


def export_float(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    path: str | Path,
    *,
    output_names: Sequence[str] = (),
) -> None:
    """Write the FP32 ONNX model whose calibrated ranges :func:`prepare` takes.

    Arguments are those of :func:`prepare`; give both the same.

    Raises:
        InputError: the inputs do not fit, or the path cannot be written to.
        ModelError: the model cannot be captured.
    """
    save_model(capture(model, example_inputs, output_names).model, path)


def prepare(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    ranges: Ranges | None = None,
    profile: Profile = "tensorrt",
    exclude: Sequence[str] = (),
    output_names: Sequence[str] = (),
    cpu_isa: Literal["vnni", "portable"] = "vnni",
) -> torch.fx.GraphModule:
    """A copy of a model that computes as its INT8 engine will, and trains.

    Takes and gives what the model does. ``train()`` and ``eval()`` switch BatchNorm and Dropout;
    layers that ask ``self.training`` otherwise are captured as in evaluation.

    Args:
        model: the trained float model.
        example_inputs: its positional inputs, of batch 2 or more, on the device that trains.
        ranges: calibrated on what :func:`export_float` wrote; without, the first batches of
            training set them.
        profile: whose placement rules.
        exclude: node names, ``/regular expressions/`` or op types of that ONNX model to keep in
            floating point.
        output_names: names of the ONNX outputs; the exporter's where empty. Inputs are called as
            the arguments of ``forward``.
        cpu_isa: ``portable`` trains a model whose INT8 engine is right on x86 CPUs without VNNI,
            too: no pair of its weights can saturate (docs/qat.md).

    Raises:
        InputError: the inputs do not fit, the model cannot be prepared, or no such ``cpu_isa``.
        ModelError: the model cannot be captured, or has no layer to quantize.
        ArtefactError: the ranges are of another model.
        UnsupportedError: an edge to quantize lies inside one operator of torch.
        MissingLibraryError: the extra ``qat`` is not installed.
    """
    if cpu_isa not in ("vnni", "portable"):
        raise InputError(f"cpu_isa is {cpu_isa!r}, expected vnni or portable; choose one")
    captured = capture(model, example_inputs, output_names)
    if ranges is not None:
        _check_ranges(captured.model, ranges)
    portable = cpu_isa == "portable"
    placement = decide(captured, profile=profile, exclude=tuple(exclude), portable=portable)
    activations, weights = edges_of(captured, placement)
    network, names = insert_fake_quantizers(captured.network, activations, weights)
    scales = {
        edge.observed: made.scale
        for edge, made in zip(placement.activations, activations, strict=True)
    }
    quantizers = {tensor: names[scale] for tensor, scale in scales.items()}
    network.meta[_RECORD] = _Record(
        model=captured.model, placement=placement, quantizers=quantizers
    )
    _start(network, ranges)
    return network.train(model.training)


def freeze_ranges(model: torch.nn.Module) -> None:
    """Stop the ranges of activations from moving; those of weights follow their weights always.

    Raises:
        InputError: the model is not prepared, or a range was never observed.
    """
    record, network = _prepared(model)
    _check_observed(record, network)
    for quantizer in _instances(network, activation_quantizer()):
        quantizer.observing = False


def freeze_batchnorm(model: torch.nn.Module) -> None:
    """Let BatchNorm use its running statistics from now on, in training too, and keep them.

    Raises:
        InputError: the model is not prepared.
    """
    _, network = _prepared(model)
    for layer in _instances(network, batch_norm()):
        layer.frozen = True


def export_onnx(model: torch.nn.Module, path: str | Path) -> None:
    """Write the trained model as ONNX with Q/DQ, INT8 weights and a dynamic batch.

    The trained parameters go into the graph captured at :func:`prepare`, which then takes the way
    of post-training quantization: prepared, Q/DQ inserted where placement said, with the ranges
    that training found.

    Raises:
        InputError: the model is not prepared, a range was never observed, or the path cannot be
            written to.
        ArtefactError: training ended in NaN.
    """
    record, network = _prepared(model)
    _check_observed(record, network)
    prepared = prepare_onnx(_with_parameters(record.model, network))
    ranges = Ranges(
        graph_hash=graph_hash(prepared),
        statistics_digest="",
        method="qat",
        tensors={
            tensor: _range(tensor, float(quantizer.amax))
            for tensor, quantizer in _quantizers(record, network)
        },
        samples=0,
        preprocess=None,
    )
    save_model(insert_qdq(prepared, record.placement, ranges), path)


def _prepared(model: torch.nn.Module) -> tuple[_Record, torch.nn.Module]:
    """The record and the network, also behind ``torch.compile`` and DistributedDataParallel."""
    network: Any = model
    while network is not None:
        record = getattr(network, "meta", {}).get(_RECORD)
        if record is not None:
            return record, network
        network = getattr(network, "_orig_mod", None) or getattr(network, "module", None)
    raise InputError(
        f"model {type(model).__name__} is not prepared for quantization-aware training, "
        f"expected what qat.prepare returned; prepare it and train that"
    )


def _check_ranges(model: onnx.ModelProto, ranges: Ranges) -> None:
    found = graph_hash(prepare_onnx(model))
    if found != ranges.graph_hash:
        raise ArtefactError(
            f"ranges belong to graph {ranges.graph_hash[:12]}, expected {found[:12]} of this "
            f"model with these weights; calibrate the file that qat.export_float writes of it"
        )


def _start(network: torch.fx.GraphModule, ranges: Ranges | None) -> None:
    """Give fake quantizers the ranges that are known: calibrated, or fixed by the operator."""
    record: _Record = network.meta[_RECORD]
    for tensor, quantizer in _quantizers(record, network):
        if tensor in record.placement.fixed:
            quantizer.start(record.placement.fixed[tensor])
            quantizer.observing = False
        elif ranges is not None:  # of tensors that share one scale, the largest
            quantizer.start(max(float(quantizer.amax), ranges.amax(tensor)))


def _check_observed(record: _Record, network: torch.nn.Module) -> None:
    missing = [
        tensor for tensor, quantizer in _quantizers(record, network) if not quantizer.observed
    ]
    if missing:
        raise InputError(
            f"{len(missing)} tensors have no range ({', '.join(missing[:3])}, ...), expected one "
            f"each; give calibrated ranges to qat.prepare, or train before: evaluation does not "
            f"move ranges"
        )


def _instances(network: torch.nn.Module, kind: type[Any]) -> Iterator[Any]:
    return (module for module in network.modules() if isinstance(module, kind))


def _quantizers(record: _Record, network: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Observed tensors with their fake quantizers; one of these may come for several tensors."""
    for tensor, name in record.quantizers.items():
        yield tensor, network.get_submodule(name)


def _with_parameters(model: onnx.ModelProto, network: torch.nn.Module) -> onnx.ModelProto:
    """A copy of a captured model with the network's parameters and running statistics."""
    tensors = dict(_tensors(network))
    trained = onnx.ModelProto()
    trained.CopyFrom(model)
    for initializer in trained.graph.initializer:
        if initializer.name in tensors:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type)
            values = tensors[initializer.name].detach().cpu().double().numpy().astype(dtype)
            if not np.isfinite(values).all():
                raise ArtefactError(
                    f"parameter {initializer.name} holds NaN or infinity, expected finite numbers; "
                    f"training has diverged: start again from a checkpoint, with a smaller "
                    f"learning rate"
                )
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    return trained


def _tensors(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def _range(tensor: str, amax: float) -> Range:
    if not np.isfinite(amax):
        raise ArtefactError(
            f"range of tensor {tensor} is {amax}, expected a finite number; training has "
            f"diverged: start again from a checkpoint, with a smaller learning rate"
        )
    if amax < SMALLEST_AMAX:
        return Range(amax=1.0, method="dead", why="zero in every batch of training")
    return Range(amax=amax, method="qat")
