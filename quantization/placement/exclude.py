"""What the user keeps in floating point: names, regular expressions, op types."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from artefacts.errors import ModelError
from graphs.view import GraphView

__all__ = ["excluded_nodes"]


def excluded_nodes(view: GraphView, patterns: Sequence[str]) -> frozenset[str]:
    """Names of the nodes that ``patterns`` select.

    A pattern is a node's name, else ``/regular expression/`` searched in names, else an op type.
    Names go first, because PyTorch's node names begin with a slash.

    Raises:
        ModelError: a pattern selects nothing, or is no valid expression.
    """
    found: set[str] = set()
    for pattern in patterns:
        found |= _matches(view, pattern)
    return frozenset(found)


def _matches(view: GraphView, pattern: str) -> set[str]:
    names = {node.name for node in view.nodes}
    ops = {node.op_type for node in view.nodes}
    if pattern in names:
        return {pattern}
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        hits = {name for name in names if _compile(pattern).search(name)}
    else:
        hits = {node.name for node in view.nodes if node.op_type == pattern}
    if not hits:
        near = difflib.get_close_matches(pattern, sorted(names | ops), n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"op types here: {', '.join(sorted(ops))}"
        )
        raise ModelError(
            f"exclude pattern {pattern!r} selects no node, expected a node name, a "
            f"/regular expression/ or an op type of this model; {hint}"
        )
    return hits


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern[1:-1])
    except re.error as err:
        raise ModelError(
            f"exclude pattern {pattern!r} is not a regular expression ({err}), expected Python "
            f"syntax between the slashes; mend it or give the node's name"
        ) from err
