"""Lint: will TensorRT take this model, and run it fast?

Severities: ``fatal`` TensorRT does not build it, or builds something else; ``slow`` it builds, with
kernels that could have been saved; ``accuracy`` it builds, less exact than it could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnx import ModelProto

from artefacts.errors import ModelError
from graphs.bodies import bodies
from graphs.edit import check_axes, copy_model, hide_initializers, sort_nodes
from graphs.shapes import check, infer_shapes
from graphs.view import GraphView
from quantization.lint.rules import RULES, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One node that breaks one rule."""

    rule: str
    severity: Severity
    node: str
    found: str
    why: str
    mend: str
    link: str


def lint(model: ModelProto, target: str = "tensorrt") -> tuple[Finding, ...]:
    """Everything that TensorRT will refuse, run slowly or round needlessly; fatal first.

    A graph that is not valid ONNX gives the one finding ``graph``. What the parser puts right by
    itself is no finding: nodes out of order, initializers that are inputs. Bodies of If, Loop and
    Scan are examined for what is fatal: Q and DQ of a pair may lie on both sides of their edge. The
    model is not changed.

    Args:
        model: any ONNX model.
        target: ``tensorrt`` or ``tensorrt-rtx``, which lacks some kernels.
    """
    inferred = copy_model(model)
    try:
        hide_initializers(inferred.graph)
        inferred.ir_version = max(inferred.ir_version, 4)  # before, initializers had to be inputs
        sort_nodes(inferred.graph)
        check_axes(inferred.graph)
        check(inferred)
        infer_shapes(inferred)
    except ModelError as err:
        return (_invalid(str(err)),)
    view = GraphView(inferred)
    rules = [name for name, rule in RULES.items() if rule.target in ("", target)]
    findings = list(_findings(view, rules))
    fatal = [name for name in rules if RULES[name].severity == "fatal"]
    for path, body in bodies(view):
        findings += _findings(GraphView(body), fatal, f"{path}/")
    order = ("fatal", "slow", "accuracy")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def _findings(view: GraphView, rules: Iterable[str], path: str = "") -> Iterator[Finding]:
    for name in rules:
        rule = RULES[name]
        for node, found in rule.find(view):
            yield Finding(
                rule=name,
                severity=rule.severity,
                node=f"{path}{node.name}",
                found=found,
                why=rule.why,
                mend=rule.mend,
                link=rule.link,
            )


def _invalid(reason: str) -> Finding:
    return Finding(
        rule="graph",
        severity="fatal",
        node="",
        found=reason,
        why="The parser reads valid ONNX only.",
        mend="Correct what is named, or export with a newer exporter.",
        link="https://onnx.ai/onnx/repo-docs/IR.html",
    )
