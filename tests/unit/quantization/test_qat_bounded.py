"""Weights that train under the bound of CPUs without VNNI."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from graphs.pairs import PAIR_LIMIT, pair_partners, saturating
from graphs.view import GraphView
from quantization.arithmetic import channel_amax, symmetric_scale
from quantization.placement import QuantizedWeight
from quantization.qat.modules import weight_quantizer
from quantization.write.bounded_weights import as_rows
from quantization.write.weights import quantize_weight

# Many of one sign and near the largest, so that pairs bind.
FLOATS = st.floats(-1, 2, width=32, allow_subnormal=False)
WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=FLOATS)
WeightFakeQuantizer = weight_quantizer()  # made once: the first call imports torchao


def codes_of(
    weight: np.ndarray, axis: int | None, pairs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the fake quantizer makes of a weight: values, codes and scale."""
    fake = WeightFakeQuantizer(axis, pairs)
    rounded = fake(torch.from_numpy(weight)).numpy()
    scale = fake.calculate_qparams()[0].numpy()
    spread = [-1 if place == axis else 1 for place in range(weight.ndim)]
    codes = rounded / (scale if axis is None else scale.reshape(spread))
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    return rounded, np.rint(codes).astype(np.int8), scale


@given(WEIGHTS, st.data())
def test_no_pair_of_a_trained_weight_saturates(weight: np.ndarray, data: st.DataObject) -> None:
    pairs = data.draw(st.integers(0, weight.ndim - 1))
    axes = [None, *(axis for axis in range(weight.ndim) if axis != pairs)]
    axis = data.draw(st.sampled_from(axes))
    _, codes, _ = codes_of(weight, axis, pairs)
    assert np.abs(codes.astype(int)).max() <= 127
    assert not saturating(as_rows(codes, axis), pair_partners(weight.shape, pairs, axis)).any()
    # Said once more without the project's own words for it: neighbours along the input channels.
    moved = np.moveaxis(codes.astype(int), pairs, 0)
    first, second = moved[: len(moved) // 2 * 2 : 2], moved[1::2]
    assert ((first * second <= 0) | (np.abs(first + second) <= PAIR_LIMIT)).all()


LAYERS = {
    "Conv": ((4, 6, 3, 3), 0, 1, {}),
    "depthwise Conv": ((8, 1, 3, 3), 0, 1, {"group": 8}),
    "ConvTranspose": ((6, 4, 2, 2), 1, 0, {}),
    "MatMul": ((7, 5), 1, 0, {}),
    "Gemm": ((7, 5), 1, 0, {}),
    "transposed Gemm": ((5, 7), 0, 1, {"transB": 1}),
    "one scale": ((6, 4, 2, 2), None, 0, {}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_training_has_the_codes_and_scales_of_the_graph(
    layer: str, rng: np.random.Generator
) -> None:
    shape, axis, pairs, attributes = LAYERS[layer]
    op_type = "ConvTranspose" if layer == "one scale" else layer.split()[-1]
    weight = rng.normal(0.3, 1, shape).astype(np.float32)
    node = helper.make_node(op_type, ["x", "w"], ["y"], name="layer", **attributes)
    rank = 2 if len(shape) == 2 else 4
    sides = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank) for name in "xy"
    ]
    initializers = [numpy_helper.from_array(weight, "w")]
    model = helper.make_model(helper.make_graph([node], "g", sides[:1], sides[1:], initializers))
    placed = QuantizedWeight(node="layer", index=1, tensor="w", axis=axis, bounded=True)
    expected = quantize_weight(GraphView(model), placed)
    rounded, codes, scale = codes_of(weight, axis, pairs)
    np.testing.assert_array_equal(codes, expected.codes)
    np.testing.assert_array_equal(scale, expected.scale)
    spread = [-1 if place == axis else 1 for place in range(weight.ndim)]
    steps = expected.scale.reshape(spread if axis is not None else ())
    np.testing.assert_array_equal(rounded, expected.codes * steps)


@given(
    hnp.arrays(np.float32, (4, 6, 2), elements=FLOATS),
    hnp.arrays(np.float32, (4,), elements=st.sampled_from([-4.0, -0.5, 0.25, 1.0, 8.0])),
)
def test_a_factor_per_channel_leaves_the_codes(weight: np.ndarray, factor: np.ndarray) -> None:
    """Why BatchNorm can be folded at export; powers of two, so that no weight is rounded anew."""
    weight[np.abs(weight) < 1e-30] = 0  # whose scale would be the smallest normal float32
    _, plain, scale = codes_of(weight, 0, 1)
    _, folded, other = codes_of(weight * factor.reshape(-1, 1, 1), 0, 1)
    signs = np.sign(factor).astype(np.int8).reshape(-1, 1, 1)
    np.testing.assert_array_equal(folded, plain * signs)
    alive = weight.any(axis=(1, 2))
    np.testing.assert_array_equal(other, np.where(alive, scale * np.abs(factor), scale))


def test_without_a_pair_that_binds_codes_are_those_of_any_cpu(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(5, 8, 3)).astype(np.float32)
    weight[:, 1::2] = -np.sign(weight[:, ::2]) * np.abs(weight[:, 1::2])  # of opposite signs
    plain = WeightFakeQuantizer(0)
    bounded = WeightFakeQuantizer(0, 1)
    values = torch.from_numpy(weight)
    torch.testing.assert_close(bounded(values), plain(values))
    np.testing.assert_array_equal(bounded.scale, symmetric_scale(channel_amax(weight, 0)))


def test_a_bound_pair_costs_scale_or_codes_and_keeps_its_gradient() -> None:
    weight = torch.tensor([[1.0, 1.0, 0.01, -0.02]], requires_grad=True)
    fake = WeightFakeQuantizer(0, 1)
    rounded = fake(weight)
    codes = (rounded / fake.scale).detach().round()
    assert codes[0, :2].sum() <= PAIR_LIMIT
    (rounded * torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("axis", [0, None])
def test_a_network_that_diverged_shows_it(bad: float, axis: int | None) -> None:
    weight = torch.full((2, 4), bad)
    assert WeightFakeQuantizer(axis, 1)(weight).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_went_in(dtype: torch.dtype) -> None:
    assert WeightFakeQuantizer(0, 1)(torch.ones(2, 4, dtype=dtype)).dtype == dtype


def test_the_operator_is_what_torch_asks_of_one() -> None:
    """Its shapes without values, and no memory shared with what it was given."""
    from quantization.qat.bounded import bounded_rounding

    for axis in (0, None):
        arguments = (torch.randn(4, 6, 3), axis, 1)
        torch.library.opcheck(bounded_rounding(), arguments)
