"""A PyTorch model as a graph of operators, and the same graph as ONNX.

Placement has its rules for ONNX; the network that trains is a graph of torch operators. Both are
made of one capture, and ``Capture.origin`` says which operator of the one came from which of the
other.
"""

from __future__ import annotations

import copy
import linecache
import operator
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from artefacts.errors import InputError, ModelError
from artefacts.libraries import require
from graphs.operators import SIZE_OPS
from graphs.walk import nodes
from quantization.qat.attention import decompose_attention
from quantization.qat.modules import EXTRA

if TYPE_CHECKING:
    import torch

__all__ = ["Capture", "capture"]

OPSET = 18
_OWNER = "pkg.torch.onnx.fx_node"


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """One network twice.

    Attributes:
        network: operators of torch, in evaluation mode; a copy with its own parameters.
        model: the same as ONNX, every parameter an initializer with its PyTorch name.
        written: ``model`` before constants were folded, when every tensor still had its origin.
        tensors: ONNX tensor → name of the operator in ``network`` whose result it is.
        owners: ONNX node → name of the operator in ``network`` that it is a part of.
    """

    network: torch.fx.GraphModule
    model: onnx.ModelProto
    written: onnx.ModelProto
    tensors: Mapping[str, str]
    owners: Mapping[str, str]


def capture(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    output_names: Sequence[str] = (),
) -> Capture:
    """Capture a model in evaluation mode with a dynamic batch; the model itself is not changed.

    Args:
        model: any module that ``torch.export`` can capture.
        example_inputs: its positional inputs, of batch 2 or more.
        output_names: of the ONNX outputs; the exporter's where empty. Inputs are called as the
            arguments of ``forward``.

    Raises:
        InputError: the inputs do not fit, or the model cannot be prepared.
        ModelError: the model cannot be captured, or not be written as ONNX.
        MissingLibraryError: torch, torchao or onnxscript is missing.
    """
    require("onnxscript", extra=EXTRA)
    require("torchao.quantization.pt2e", extra=EXTRA)
    _check(model, example_inputs)
    copied = copy.deepcopy(model).eval()
    with _explained(model, "torch.export"):
        network = _export(copied, example_inputs).module(check_guards=False)
    decompose_attention(network)
    # Once more, so that names are those of this very graph.
    with _explained(model, "torch.export"):
        program = _export(network, example_inputs)
    with _explained(model, "torch.onnx.export"):
        return _write(program, output_names)


def _check(model: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> None:
    import torch

    name = type(model).__name__
    if "tensorrt_qat" in getattr(model, "meta", {}):
        raise InputError(f"model {name} is prepared already, expected the float model; use it")
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        raise InputError(
            f"model is wrapped in {name}, expected the bare module; prepare model.module first "
            f"and wrap the result"
        )
    if not (
        isinstance(example_inputs, tuple)
        and example_inputs
        and all(isinstance(value, torch.Tensor) and value.ndim for value in example_inputs)
    ):
        raise InputError(
            f"example_inputs are {_described(example_inputs)}, expected a tuple of tensors with a "
            f"batch axis, e.g. (torch.zeros(2, 3, 224, 224),)"
        )
    if len({value.shape[0] for value in example_inputs}) > 1 or example_inputs[0].shape[0] < 2:
        raise InputError(
            f"example_inputs have batch sizes {[value.shape[0] for value in example_inputs]}, "
            f"expected one size of 2 or more; torch.export takes a batch of 1 for a constant"
        )
    _check_modules(model)
    _check_devices(model, example_inputs)


def _check_modules(model: torch.nn.Module) -> None:
    """Layers whose training cannot be kept in a captured graph."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.SyncBatchNorm):
            raise InputError(
                f"layer {name} is a SyncBatchNorm, expected BatchNorm: a captured graph does not "
                f"synchronise it; fine-tune with frozen statistics on plain BatchNorm layers"
            )
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and (
            module.track_running_stats and module.momentum is None
        ):
            raise InputError(
                f"layer {name} has momentum None (a cumulative average), expected a number: a "
                f"captured graph does not count batches; set its momentum, e.g. 0.1"
            )


def _check_devices(model: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> None:
    tensors = [*model.parameters(), *model.buffers(), *example_inputs]
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1:
        raise InputError(
            f"model and example_inputs are on devices {', '.join(devices)}, expected one; move "
            f"both to the device that trains"
        )


def _export(model: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Any:
    import torch

    batch = torch.export.Dim("batch")
    dynamic = tuple({0: batch} for _ in example_inputs)
    return torch.export.export(model, example_inputs, dynamic_shapes=dynamic)


def _write(program: Any, output_names: Sequence[str]) -> Capture:
    import onnxscript
    import torch

    program_onnx: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        optimize=False,
        output_names=list(output_names) or None,
    )
    written = program_onnx.model_proto
    # Folding only: the exporter's own optimizer also fuses, and its new nodes have no origin.
    onnxscript.optimizer.fold_constants(program_onnx.model, should_fold=_should_fold)
    model = program_onnx.model_proto
    operators = {node.name: node for node in program.graph.nodes}
    sources = {
        node.name: _source(node, operators) for node in program_onnx.exported_program.graph.nodes
    }
    owners = {node.name: sources[owner] for node in nodes(written) if (owner := _owner(node))}
    _drop_notes(model)
    network = program.module(check_guards=False)
    inputs = network.graph.find_nodes(op="placeholder")
    outputs: Any = network.graph.output_node().args[0]
    ends = zip([*model.graph.input, *model.graph.output], [*inputs, *outputs], strict=True)
    sources.update((value.name, node.name) for value, node in ends)
    return Capture(network=network, model=model, written=written, tensors=sources, owners=owners)


def _should_fold(node: Any) -> bool | None:
    """No parameter's value, as training changes it; its shape stays. None: as the folder likes."""
    reads_values = node.op_type not in SIZE_OPS
    if reads_values and any(value is not None and value.is_initializer() for value in node.inputs):
        return False
    return None


def _source(node: torch.fx.Node, operators: Mapping[str, torch.fx.Node]) -> str:
    """The captured operator that an operator of the exporter's finer graph was made of."""
    origin = node.meta.get("from_node")
    if not origin or origin[-1].name not in operators:
        return node.name
    source = operators[origin[-1].name]
    if node.target is operator.getitem:  # one of several results
        for user in source.users:
            if user.target is operator.getitem and user.args[1] == node.args[1]:
                return user.name
    return source.name


def _owner(node: onnx.NodeProto) -> str:
    """The operator that an ONNX node was made for, from the exporter's note on it."""
    note = next((entry.value for entry in node.metadata_props if entry.key == _OWNER), "")
    match = re.match(r"%(\w+) ", note)
    return match.group(1) if match else ""


def _drop_notes(model: onnx.ModelProto) -> None:
    """The exporter writes source paths of this machine into the model; they go no further."""
    for part in (model, model.graph, *nodes(model), *model.graph.value_info):
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


_EXPECTED = {
    "torch.export": (
        "a forward that takes any batch and has no control flow that hangs on values; write it "
        "with tensor operators, e.g. torch.where"
    ),
    "torch.onnx.export": "operators that ONNX has; replace that one, or take it out of the model",
}


@contextmanager
def _explained(model: torch.nn.Module, step: str) -> Iterator[None]:
    """Say what in the user's model stopped an export."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as err:
        cause: BaseException = err
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:400]
        raise ModelError(
            f"model {type(model).__name__} cannot be captured by {step}{_user_line(err)} "
            f"({type(cause).__name__}: {reason}), expected {_EXPECTED[step]}"
        ) from err


def _user_line(err: BaseException) -> str:
    """The innermost line outside torch and this module on the way to an error."""
    import torch

    library = Path(torch.__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if not Path(frame.filename).is_relative_to(library)
        and frame.filename not in (__file__, "<string>")
        and "contextlib" not in frame.filename
    ]
    if not frames:
        return ""
    last = frames[-1]
    code = linecache.getline(last.filename, last.lineno or 0).strip()
    return f" at {Path(last.filename).name}, line {last.lineno}: {code!r}"


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(item).__name__ for item in value)}"
    return type(value).__name__
