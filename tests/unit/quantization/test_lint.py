"""Each rule finds the model that breaks it, and no clean model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from quantization.lint.lint import RULES, lint
from tests.lint_models import BROKEN, CLEAN, lint_model, with_domain
from tests.lint_settings import UNREAD

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
    findings = lint(model, RULES[rule].target or "tensorrt")
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
        ("scale-shape", "scale of shape [1] for 4 axes"),
        ("unsupported-setting", "MaxPool with dilations 2, 2"),
        ("many-chosen", "TopK of 4000"),
        ("changing-rank", "If of branches with 4 and 2 axes"),
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


@pytest.mark.parametrize("rule", ["missing-kernel", "missing-plugin"])
def test_what_one_target_lacks(rule: str) -> None:
    model = lint_model(*BROKEN[rule])
    assert rule not in {finding.rule for finding in lint(model, "tensorrt")}


def test_what_the_parser_puts_right_is_no_finding() -> None:
    """Nodes out of order; initializers that are inputs, as every model before IR 4 has them."""
    model = lint_model(*CLEAN["conv"])
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    assert lint(model) == ()


def test_weights_behind_a_pair_on_the_wrong_axis() -> None:
    """As quantization-aware training exports them: float weights through Q and DQ."""
    body = (
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
        "k = QuantizeLinear <axis=0> (t, vs, vz) td = DequantizeLinear <axis=0> (k, vs, vz) "
        "y = ConvTranspose (d, td, b)"
    )
    weight = np.ones((8, 16, 3, 3), np.float32)
    (finding,) = lint(lint_model(body, {"t": weight}, 17))
    assert finding.rule == "weight-axis"
    assert finding.found == "axis 0, the output channels of ConvTranspose are 1"


def test_codes_of_an_activation_may_be_clipped() -> None:
    body = (
        "q = QuantizeLinear (x, s, z) k = Clip (q, low, high) d = DequantizeLinear (k, s, z) "
        "y = Relu (d)"
    )
    findings = lint(lint_model(body, {}, 17))
    assert {(finding.rule, finding.severity) for finding in findings} == {("unpaired", "slow")}
    assert "its codes are read by Clip" in {finding.found for finding in findings}


def test_empty_graph_is_no_trace() -> None:
    lint(onnx.ModelProto())


def in_branches(model: onnx.ModelProto, *, constants_outside: bool) -> onnx.ModelProto:
    """The graph as both branches of an If; its inputs are read from outside."""
    branch = onnx.GraphProto(name="branch", node=model.graph.node)
    branch.output.append(onnx.helper.make_empty_tensor_value_info(model.graph.output[0].name))
    constants = model.graph.initializer
    if not constants_outside:
        branch.initializer.extend(constants)
    node = onnx.helper.make_node("If", ["flag"], ["z_out"], name="If:z_out")
    for name in ("then_branch", "else_branch"):
        node.attribute.append(onnx.helper.make_attribute(name, branch))
    flag = onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    graph = onnx.helper.make_graph(
        [node],
        "conditional",
        [flag, *model.graph.input],
        [onnx.helper.make_empty_tensor_value_info("z_out")],
        list(constants) if constants_outside else [],
    )
    kind = onnx.TensorProto.FLOAT
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z_out", kind, None))
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


@pytest.mark.parametrize("constants_outside", [True, False])
@pytest.mark.parametrize("rule", [name for name in BROKEN if RULES[name].severity == "fatal"])
def test_fatal_inside_a_branch(rule: str, constants_outside: bool) -> None:
    plain = lint_model(*BROKEN[rule])
    model = in_branches(plain, constants_outside=constants_outside)
    before = model.SerializeToString(deterministic=True)
    found = lint(model, RULES[rule].target or "tensorrt")
    nodes = {finding.node for finding in found if finding.rule == rule}
    assert model.SerializeToString(deterministic=True) == before
    wanted = {finding.node for finding in lint(plain) if finding.rule == rule}
    for branch in ("then_branch", "else_branch"):
        assert {f"If:z_out/{branch}/{node}" for node in wanted} <= nodes


def test_operators_of_machine_learning_are_none_of_the_parsers() -> None:
    """A Scaler in front of a network, as converters of scikit-learn leave it."""
    model = with_domain("ai.onnx.ml", "y = ai.onnx.ml.Scaler <offset=[0.5], scale=[2.0]> (x)")
    assert [(each.rule, each.found) for each in lint(model)] == [
        ("custom-operator", "ai.onnx.ml.Scaler")
    ]
    assert lint(with_domain("ai.onnx.preview", "y = ai.onnx.preview.Relu (x)")) == ()


def bare(body: str, shape: str, **constants: object) -> onnx.ModelProto:
    """A model of float x to an output of no declared shape."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] x) => (y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


_LOOP = """y = Loop (trips, yes, x) <body = b (int64 i, bool c, float s) => (bool o, float t)
{ o = Identity (c) t = %s (s, zero) }>"""


@pytest.mark.parametrize(
    ("body", "shape", "found"),
    [
        ("y = Squeeze (x)", "N,1,4", ["Squeeze without axes of shape [?, 1, 4]"]),
        ("y = Squeeze (x)", "2,1,4", []),  # all sizes are known
        ("y = Squeeze (x, one)", "N,1,4", []),
        (
            _LOOP % "Unsqueeze",
            "N,4",
            ["Loop whose state has 2 axes, then 3"],
        ),
        (_LOOP % "Add", "N,4", []),
    ],
)
def test_what_changes_its_rank(body: str, shape: str, found: list[str]) -> None:
    constants = {"one": np.array([1]), "trips": np.array(3), "yes": np.array(True)}
    zero = np.array([0]) if "Unsqueeze" in body else np.zeros(1, np.float32)
    findings = lint(bare(body, shape, zero=zero, **constants))
    assert [each.found for each in findings if each.rule == "changing-rank"] == found


@pytest.mark.parametrize("found", UNREAD)
def test_settings_that_the_parser_refuses(found: str) -> None:
    findings = lint(lint_model(*UNREAD[found]), "tensorrt-rtx")
    assert [each.found for each in findings if each.severity == "fatal"] == [found]


@pytest.mark.parametrize(
    "body",
    [
        "y = MaxPool <kernel_shape=[2,2], dilations=[1,1]> (x)",
        'y = Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, , halves)',
        "k = Cast <to=6> (x) y = Cast <to=1> (k)",
        "y = ReduceSum (x, axes)",
    ],
)
def test_settings_that_the_parser_takes(body: str) -> None:
    assert lint(lint_model(body, {}, 17), "tensorrt-rtx") == ()
