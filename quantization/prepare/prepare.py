"""Preparation: the graph that calibration, placement and every artefact refer to.

Folding renames and removes tensors, and ranges are kept by tensor name: so a graph is prepared
once, first, and everything after works on the result. Preparing twice changes nothing.
"""

from __future__ import annotations

import logging

from onnx import GraphProto, ModelProto, NodeProto

from artefacts.errors import ModelError
from graphs.edit import check_axes, copy_model, drop_dead, hide_initializers, sort_nodes
from graphs.names import name_nodes
from graphs.raising import MINIMUM_OPSET, raise_opset
from graphs.shapes import check, infer_shapes
from graphs.walk import is_default_domain, nodes, operator
from quantization.prepare.batchnorm import fold_batchnorm
from quantization.prepare.branches import inline_branches
from quantization.prepare.early_casts import move_casts
from quantization.prepare.empties import write_empties
from quantization.prepare.fold import GROWTH_LIMIT_BYTES, constant_bytes, fold_constants
from quantization.prepare.functions import inline_functions
from quantization.prepare.loops import drop_unchanged_states
from quantization.prepare.noops import drop_noops
from quantization.prepare.own_weights import separate_weights
from quantization.prepare.pads import take_in_pads, write_output_shapes, write_pads
from quantization.prepare.sequences import drop_sequences
from quantization.prepare.sizes import fold_sizes
from quantization.prepare.spectra import write_sides
from quantization.prepare.squeezes import write_squeezed_axes
from quantization.prepare.states import declare_states, forget_states, write_conditions
from quantization.prepare.transposes import lift_pointwise
from quantization.prepare.unread_outputs import drop_unread_outputs
from quantization.prepare.widen import widen_floats
from quantization.prepare.written_out import write_out

__all__ = ["prepare"]

_IR_VERSION = 7  # that of opset 13; before 4 each initializer had to be an input

log = logging.getLogger(__name__)


def prepare(model: ModelProto, *, widen: bool = True) -> ModelProto:
    """A new model that computes the same and is ready for calibration and Q/DQ.

    Opset 13 or newer, shapes inferred, constants and BatchNormalization folded, no-ops and
    sequences of known pieces dropped, initializers no graph inputs, float32 inside, nodes named
    uniquely; what a file leaves open and what runtimes lack written out. Inputs and outputs keep
    their names, types and dynamic axes. Custom operators are left as they are, and subgraphs but
    for the shapes of states and empty constants.

    Args:
        model: any ONNX model with its data loaded.
        widen: False leaves float16, bfloat16 and float64 as they are, for models that are
            quantized already and built as they are.

    Raises:
        ModelError: the graph is not valid, or its opset is older than 13 and cannot be raised.
    """
    prepared = copy_model(model)
    prepared.ir_version = max(prepared.ir_version, _IR_VERSION)
    _check_names(prepared.graph)
    _check_outputs(prepared.graph)
    sort_nodes(prepared.graph)
    hide_initializers(prepared.graph)
    forget_states(prepared.graph)
    write_conditions(prepared.graph)
    check_axes(prepared.graph)
    check(prepared)  # before anything else of onnx, which crashes on what this refuses
    prepared = raise_opset(inline_functions(prepared), MINIMUM_OPSET)
    if widen and widen_floats(prepared):
        sort_nodes(prepared.graph)
    check(prepared)
    write_sides(prepared.graph)
    _simplify(prepared)
    write_empties(prepared.graph)
    name_nodes(prepared.graph)
    check(prepared)
    _warn(prepared.graph)
    return prepared


def _simplify(model: ModelProto) -> None:
    """Run the passes until none finds anything to do."""
    limit_bytes = GROWTH_LIMIT_BYTES + 2 * constant_bytes(model)
    changed = True
    while changed:
        infer_shapes(model)
        changed = drop_unchanged_states(model)
        changed |= declare_states(model)
        changed |= fold_constants(model, limit_bytes)
        changed |= fold_sizes(model)
        changed |= inline_branches(model)
        changed |= drop_sequences(model)
        changed |= drop_noops(model)
        changed |= lift_pointwise(model)
        changed |= fold_batchnorm(model)
        changed |= write_squeezed_axes(model)
        changed |= write_pads(model)
        changed |= write_output_shapes(model)
        changed |= take_in_pads(model)
        changed |= move_casts(model)
        changed |= write_out(model)
        changed |= separate_weights(model.graph)
        changed |= drop_unread_outputs(model)
        changed |= drop_dead(model.graph)


def _check_names(graph: GraphProto) -> None:
    """Each tensor is made once."""
    made: set[str] = set()
    constant = {tensor.name for tensor in graph.initializer}
    names = [v.name for v in graph.input if v.name not in constant]
    names += [tensor.name for tensor in graph.initializer]
    names += [name for node in nodes(graph) for name in node.output if name]
    for name in names:
        if name in made:
            raise ModelError(
                f"graph {graph.name!r} makes tensor {name!r} twice, expected one node, input or "
                f"initializer for each name; rename one of the two"
            )
        if not name.isprintable():
            raise ModelError(
                f"graph {graph.name!r} has a tensor named {name!r}, expected one without control "
                f"characters (calibration caches hold one name a line); rename it"
            )
        made.add(name)


def _check_outputs(graph: GraphProto) -> None:
    """Engines give tensors."""
    for value in graph.output:
        kind = value.type.WhichOneof("value")
        if kind in (None, "tensor_type"):
            continue
        held = value.type.sequence_type.elem_type if kind == "sequence_type" else value.type
        maps = held.HasField("map_type")
        raise ModelError(
            f"output {value.name} of graph {graph.name!r} is a {kind.removesuffix('_type')} of "
            f"{'maps' if maps else 'tensors'}, expected a tensor; "
            + (
                "end the model before its ZipMap, in skl2onnx by options={'zipmap': False}"
                if maps
                else "export its pieces as outputs of their own"
            )
        )


def _warn(graph: GraphProto) -> None:
    custom = sorted({operator(node) for node in nodes(graph) if not is_default_domain(node)})
    if custom:
        log.warning("custom operators are left as they are: %s", ", ".join(custom))
    training = [node.name for node in nodes(graph) if _in_training(node)]
    if training:
        log.warning(
            "nodes in training mode give other results for other batches: %s; export the model in "
            "evaluation mode",
            ", ".join(training),
        )


def _in_training(node: NodeProto) -> bool:
    """Whether statistics come from the batch, or values are dropped at random."""
    if operator(node) == "BatchNormalization":
        flag = any(a.name == "training_mode" and a.i for a in node.attribute)
        return flag or len([name for name in node.output if name]) > 1
    return operator(node) == "Dropout" and len(node.input) > 2 and bool(node.input[2])
