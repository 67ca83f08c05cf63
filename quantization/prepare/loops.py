"""What a ``Loop`` carries from step to step and no step changes: read from outside instead.

Paddle's exporter hands a decoder all its weights as states. OpenVINO's parser then counts them
wrong and refuses the loop, and weights that are states are constants to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto

from graphs.bodies import handed_on
from graphs.edit import insert_nodes, rewire
from graphs.names import Names
from graphs.walk import nodes, operator, output_names, subgraphs, walk

__all__ = ["BEFORE_STATES", "drop_unchanged_states"]

BEFORE_STATES = 2
"""Inputs of a Loop and of its body: count and condition; index and condition."""


def drop_unchanged_states(model: ModelProto) -> bool:
    """Let the body of a loop read such states where they start. Returns whether one did.

    Args:
        model: changed in place, one loop at a time; those inside of bodies are left as they are.
    """
    loops = (node for node in nodes(model) if operator(node) == "Loop")
    return any(_read_from_outside(model.graph, node) for node in loops)


def _read_from_outside(graph: GraphProto, node: NodeProto) -> bool:
    (body,) = subgraphs(node)
    starts, states = node.input[BEFORE_STATES:], body.input[BEFORE_STATES:]
    if len(starts) != len(states) or len(body.output) <= len(states):
        return False  # a damaged file, for runtimes to refuse
    inside = _unchanged(body, starts)
    if not inside:
        return False
    names = [state.name for state in states]
    kept = [number for number, name in enumerate(names) if name not in inside]
    behind = {
        output: inside[name]
        for name, output in zip(names, node.output, strict=False)
        if name in inside and output
    }
    scanned = range(len(names), len(body.output) - 1)
    _keep(body, kept, [*kept, *scanned])
    _hand_on(body, inside)
    node.input[:] = [*node.input[:BEFORE_STATES], *(starts[n] for n in kept)]
    node.output[:] = [node.output[n] for n in (*kept, *scanned) if n < len(node.output)]
    rewire(graph, behind)
    _make_outputs(graph, {n: start for n, start in behind.items() if n in output_names(graph)})
    return True


def _unchanged(body: GraphProto, starts: Sequence[str]) -> dict[str, str]:
    """State → where it starts, of those that no step changes.

    A name outside that stands for something else inside of the body cannot be read there.
    """
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    made = {name for inner in walk(body) for name in inner.output}
    made |= {v.name for inner in walk(body) for deep in subgraphs(inner) for v in deep.input}
    return {
        state.name: start
        for state, after, start in zip(
            body.input[BEFORE_STATES:], body.output[1:], starts, strict=False
        )
        if handed_on(body, after.name) == state.name
        and start
        and made.isdisjoint((state.name, start))
        and start not in own - {state.name}
    }


def _keep(body: GraphProto, states: list[int], outputs: list[int]) -> None:
    """Only these states, and these outputs behind the condition."""
    inputs = [*body.input[:BEFORE_STATES], *(body.input[BEFORE_STATES + n] for n in states)]
    results = [body.output[0], *(body.output[1 + n] for n in outputs)]
    rest = GraphProto(input=inputs, output=results)  # copies, before what they are of goes
    del body.input[:], body.output[:]
    body.input.extend(rest.input)
    body.output.extend(rest.output)


def _hand_on(body: GraphProto, inside: dict[str, str]) -> None:
    """Read the starts; what a body gives is made in it."""
    rewire(body, inside)
    given = {value.name for value in body.output if value.name in inside}
    _make_outputs(body, {name: inside[name] for name in given})


def _make_outputs(graph: GraphProto, sources: dict[str, str]) -> None:
    """Identities behind all other nodes, which are copied."""
    names = Names(graph)
    made = [
        names.node("Identity", [source], [output], wanted=f"{output}_identity")
        for output, source in sources.items()
    ]
    insert_nodes(graph, {len(nodes(graph)): made})
