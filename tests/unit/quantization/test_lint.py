"""Each rule finds the model that breaks it, and no clean model."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from quantization.lint import RULES, lint
from tests.lint_models import BROKEN, CLEAN, lint_model

# Rules that the model of another rule cannot help breaking too.
_ALSO = {
    "uint8": {"zero-point"},
    "code-constant": {"unpaired"},
    "integer-operator": {"unpaired", "output-pair", "code-constant"},
    "scale-count": {"minimum-code"},
}


def test_every_rule_has_a_model() -> None:
    assert set(BROKEN) == set(RULES)


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_finds_its_model(rule: str) -> None:
    model = lint_model(*BROKEN[rule])
    before = model.SerializeToString(deterministic=True)
    findings = lint(model)
    assert model.SerializeToString(deterministic=True) == before
    assert rule in {finding.rule for finding in findings}
    assert {finding.rule for finding in findings} <= {rule} | _ALSO.get(rule, set())
    mine = [finding for finding in findings if finding.rule == rule]
    assert {finding.node for finding in mine} <= {node.name for node in model.graph.node}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_model_has_no_finding(name: str) -> None:
    assert lint(lint_model(*CLEAN[name])) == ()


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("zero-point", "zero point 3"),
        ("scale-value", "scale 0 (1 of 1)"),
        ("int32-dequantize", "int32 codes of a bias"),
        ("scale-count", "3 scales for 16 channels"),
        ("weight-axis", "axis 1, the output channels of Conv are 0"),
        ("skip-float", "input x"),
        ("float-island", "between Conv:c and Conv:y"),
        ("pair-before-add", "between Conv:c and Add:y"),
        ("concat-scales", "scales 0.1, 0.2"),
        ("minimum-code", "1152 of 1152 codes are -128"),
        ("mismatched-pair", "scale 0.2, its QuantizeLinear has 0.1"),
    ],
)
def test_what_was_found(rule: str, found: str) -> None:
    findings = lint(lint_model(*BROKEN[rule]))
    assert next(finding.found for finding in findings if finding.rule == rule) == found


def test_fatal_comes_first() -> None:
    model = lint_model(*BROKEN["integer-operator"])
    severities = [finding.severity for finding in lint(model)]
    assert severities == sorted(severities, key=["fatal", "slow", "accuracy"].index)


def test_quantize_without_zero_point_is_uint8() -> None:
    body, _, _ = CLEAN["conv"]
    model = lint_model(body.replace(", s, z)", ", s)"), {}, 17)
    assert [finding.rule for finding in lint(model)][:1] == ["uint8"]


def test_invalid_graph_is_a_finding() -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) '
        "{ y = Relu (nowhere) }"
    )
    (finding,) = lint(model)
    assert (finding.rule, finding.severity) == ("graph", "fatal")
    assert "nowhere" in finding.found


def test_empty_graph_is_no_trace() -> None:
    lint(onnx.ModelProto())
