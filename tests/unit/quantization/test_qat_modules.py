"""The modules that stand in a network being trained."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantization.arithmetic import channel_amax, dequantize, quantize, symmetric_scale
from quantization.qat.modules import activation_quantizer, batch_norm, weight_quantizer

FLOATS = st.floats(-100, 100, width=32, allow_subnormal=False)
# Made once, before any test is timed: the first call imports torchao.
ActivationFakeQuantizer, WeightFakeQuantizer = activation_quantizer(), weight_quantizer()
MATRICES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=FLOATS)


def activation(amax: float | None = None):
    fake = ActivationFakeQuantizer()
    if amax is not None:
        fake.start(amax)
    return fake


def observe(fake, *largest: float) -> float:
    """Range after training batches whose largest magnitudes are these."""
    fake.train()
    for value in largest:
        fake(torch.tensor([0.0, -value]))
    return float(fake.amax)


@given(MATRICES, st.floats(0.125, 200, width=32))
def test_activations_are_rounded_as_onnx_quantize_linear_does(x: np.ndarray, amax: float) -> None:
    rounded = activation(amax).eval()(torch.from_numpy(x)).numpy()
    scale = symmetric_scale(amax)
    expected = dequantize(quantize(x, scale, qmin=-128), scale)
    np.testing.assert_array_equal(rounded, expected)


@given(MATRICES, st.data())
def test_weights_are_rounded_per_channel_as_the_graph_will_have_them(
    weight: np.ndarray, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, weight.ndim - 1))
    fake = WeightFakeQuantizer(axis)
    rounded = fake(torch.from_numpy(weight)).numpy()
    scale = symmetric_scale(channel_amax(weight, axis))
    np.testing.assert_allclose(fake.calculate_qparams()[0], scale, rtol=1e-6)
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    assert (np.abs(rounded - weight) <= 0.5001 * shaped).all()
    assert np.abs(np.rint(rounded / shaped)).max() <= 127


@given(
    hnp.arrays(np.float32, (4, 3, 2), elements=FLOATS),
    hnp.arrays(np.float32, (4,), elements=st.sampled_from([-4.0, -0.5, 0.25, 1.0, 8.0])),
)
def test_folding_a_scale_per_channel_commutes_with_quantization(
    weight: np.ndarray, scale: np.ndarray
) -> None:
    """Why BatchNorm can stay behind its layer while training: Q(s w) = s Q(w)."""
    fake = WeightFakeQuantizer(0)
    factor = torch.from_numpy(scale).reshape(-1, 1, 1)
    values = torch.from_numpy(weight)
    # Scales below the smallest normal float32 are rounded: the law ends there.
    torch.testing.assert_close(fake(values * factor), fake(values) * factor, rtol=1e-6, atol=1e-35)


def test_one_scale_for_a_whole_weight() -> None:
    fake = WeightFakeQuantizer(None)
    fake(torch.tensor([[1.0, -2.0], [0.5, 0.1]]))
    assert fake.calculate_qparams()[0].item() == pytest.approx(2 / 127)


def test_a_dead_channel_stays_zero_and_its_scale_is_one() -> None:
    fake = WeightFakeQuantizer(0)
    assert not fake(torch.zeros(2, 3)).any()
    assert fake.calculate_qparams()[0].tolist() == [1.0, 1.0]


def test_gradient_passes_inside_the_range_and_stops_outside() -> None:
    x = torch.tensor([0.5, -0.9, 1.1, -2.0], requires_grad=True)
    activation(1.0).eval()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_range_without_a_start_is_the_moving_average_of_the_batches() -> None:
    assert observe(activation(), 4.0) == 4.0
    assert observe(activation(), 4.0, 8.0) == pytest.approx(4.0 + 0.01 * 4.0)


def test_calibrated_range_moves_in_proportion_to_the_batches() -> None:
    """A range clipped to half the maximum stays at half while the maximum grows."""
    fake = activation(2.0)
    assert observe(fake, 4.0) == 2.0
    assert observe(fake, 8.0) == pytest.approx(2.0 * 1.01)
    assert observe(fake, *[8.0] * 1500) == pytest.approx(4.0, rel=1e-3)


def test_evaluation_and_frozen_ranges_do_not_move() -> None:
    fake = activation(2.0).eval()
    fake(torch.tensor([50.0]))
    fake.train().observing = False
    fake(torch.tensor([50.0]))
    assert fake.amax == 2.0
    assert fake.batch_amax == 0.0


def test_before_any_range_is_known_values_pass_unchanged() -> None:
    x = torch.randn(5)
    assert torch.equal(activation().eval()(x), x)


def test_tensors_that_share_a_scale_follow_the_largest() -> None:
    fake = activation().train()
    fake.calls = 3
    for value in (1.0, 5.0, 2.0):
        fake(torch.tensor([value]))
    assert fake.amax == 5.0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_overflowed_does_not_move_the_range(bad: float) -> None:
    assert observe(activation(3.0), 3.0, bad, 3.0) == pytest.approx(3.0)


def test_a_tensor_that_is_always_zero_keeps_range_zero() -> None:
    fake = activation()
    assert observe(fake, 0.0, 0.0) == 0.0
    assert fake(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_went_in(dtype: torch.dtype) -> None:
    x = torch.tensor([0.5, 3.0], dtype=dtype)
    assert activation(1.0).eval()(x).dtype == dtype
    assert WeightFakeQuantizer(0)(x.reshape(2, 1)).dtype == dtype


def test_state_comes_back_with_its_switches() -> None:
    fake = activation(2.0)
    observe(fake, 3.0)
    fake.observing = False
    other = activation()
    other.load_state_dict(copy.deepcopy(fake.state_dict()))
    assert (other.amax, other.batch_amax) == (fake.amax, fake.batch_amax)
    assert (other.observing, other.observed) == (False, True)


def test_batch_norm_is_torchs_in_both_modes() -> None:
    reference = torch.nn.BatchNorm1d(3, eps=1e-3, momentum=0.03)
    ours = batch_norm()(0.03, 1e-3)
    mean, variance = torch.zeros(3), torch.ones(3)
    for training in (True, True, False):
        x = torch.randn(8, 3) * 5
        expected = reference.train(training)(x)
        found = ours.train(training)(x, reference.weight, reference.bias, mean, variance)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(variance, reference.running_var)


def test_frozen_batch_norm_keeps_its_statistics_in_training() -> None:
    ours = batch_norm()(0.1, 1e-5).train()
    ours.frozen = True
    mean, variance = torch.zeros(3), torch.ones(3)
    x = torch.randn(8, 3)
    torch.testing.assert_close(ours(x, None, None, mean, variance), x, rtol=1e-4, atol=1e-4)
    assert mean.tolist() == [0.0, 0.0, 0.0]
    other = batch_norm()(0.1, 1e-5)
    other.load_state_dict(ours.state_dict())
    assert other.frozen
