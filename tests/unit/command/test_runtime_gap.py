"""What rounding explains between an engine and its graph, and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from artefacts.decibels import LIMIT_DB
from pipeline.runtime_gap import GapMeter


def outputs(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": values.astype(np.float32)}


def meter_of(plain: np.ndarray | None, graph: np.ndarray, engine: np.ndarray, **limits: float):
    meter = GapMeter(batch=1, **limits)
    meter.add(None if plain is None else outputs(plain), outputs(graph), outputs(engine), ["y"])
    (gap,) = meter.gaps()
    return gap


def test_another_rounding_is_explained_and_a_larger_error_is_not(rng: np.random.Generator) -> None:
    plain = rng.normal(size=10_000)
    graph = plain + 0.01 * rng.normal(size=plain.size)
    other = plain + 0.01 * rng.normal(size=plain.size)  # as far from FP32, independently
    wrong = graph + 0.03 * rng.normal(size=plain.size)
    assert meter_of(plain, graph, (graph + other) / 2).explained
    gap = meter_of(plain, graph, wrong)
    assert not gap.explained
    signal = (graph**2).sum()
    assert gap.limit_db == pytest.approx(
        10 * np.log10(signal / ((graph - plain) ** 2).sum()) - 3, abs=1e-3
    )
    assert gap.sqnr_db == pytest.approx(
        10 * np.log10(signal / ((wrong - graph) ** 2).sum()), abs=1e-3
    )


def test_an_engine_no_farther_from_the_float_network_than_its_graph_is_right() -> None:
    """Class scores, rounded to opposite sides; and the same gap away from the float network."""
    plain, sides = np.tile([0.98, 0.02], 50), np.tile([1.0, -1.0], 50)
    graph, opposite, beyond = (plain + d * sides for d in (0.01, -0.0095, 0.0295))
    gap = meter_of(plain, graph, opposite)
    assert gap.explained
    assert gap.sqnr_db < meter_of(plain, graph, beyond).limit_db
    assert meter_of(plain, graph, beyond).sqnr_db == pytest.approx(gap.sqnr_db, abs=1e-3)
    assert not meter_of(plain, graph, beyond).explained
    assert not meter_of(None, graph, opposite).explained
    assert meter_of(plain, graph, 2 * plain - graph).explained  # just as far, on the other side


def test_few_numbers_may_lie_on_opposite_sides() -> None:
    """Sixteen scores, nearly twice the graph's error apart: chance, and of many numbers a fault."""
    for count, explained in ((8, True), (50, False)):
        plain, sides = np.tile([0.98, 0.02], count), np.tile([1.0, -1.0], count)
        gap = meter_of(plain, plain + 0.01 * sides, plain + 0.0295 * sides)
        assert gap.explained is explained
        assert not meter_of(plain, plain + 0.01 * sides, plain + 0.0305 * sides).explained


def test_few_of_many_numbers_may_hold_the_difference(rng: np.random.Generator) -> None:
    """Probabilities of a confident network: the few doubtful ones are all of its noise."""
    plain = rng.uniform(0.1, 1.0, 100_000)
    for doubtful, explained in ((6, True), (5_000, False)):
        sides = np.zeros(plain.size)
        places = rng.choice(plain.size, doubtful, replace=False)
        sides[places] = rng.choice([-1.0, 1.0], doubtful)
        sides += 1e-7 * rng.standard_normal(plain.size)
        gap = meter_of(plain, plain + 0.05 * sides, plain + 0.05 * 2.7 * sides)
        assert gap.explained is explained
        assert not meter_of(plain, plain + 0.05 * sides, plain + 0.05 * 3.1 * sides).explained


def test_equal_outputs_are_exact_and_constants_are_no_excuse(rng: np.random.Generator) -> None:
    graph = rng.normal(size=100)
    assert meter_of(graph, graph, graph).sqnr_db == LIMIT_DB
    assert meter_of(np.zeros(3), np.zeros(3), np.zeros(3)).explained
    assert not meter_of(np.zeros(3), np.zeros(3), np.ones(3)).explained


def test_limits_lie_between_10_and_60_db(rng: np.random.Generator) -> None:
    graph = rng.normal(size=1000)
    assert meter_of(graph, graph, graph + 1e-6).limit_db == 60.0
    assert meter_of(0.4 * graph, graph, -graph).limit_db == 10.0
    assert meter_of(None, graph, graph).limit_db == 60.0
    assert meter_of(None, graph, graph * 1.01, limit_db=25.0).explained


def test_far_from_float_an_engine_as_near_as_its_graph_is_right(rng: np.random.Generator) -> None:
    """A detector of 11 dB: both roundings are independent, and 8 dB from each other."""
    plain, first, second = rng.normal(size=(3, 50_000))
    graph = plain + 10 ** (-11 / 20) * first
    for own_db, explained in ((11.1, True), (8.5, True), (7.5, False)):
        engine = plain + 10 ** (-own_db / 20) * second
        assert meter_of(plain, graph, engine).explained is explained


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_must_be_the_same(bad: float) -> None:
    graph = np.array([1.0, 2.0, bad])
    assert meter_of(graph, graph, graph).explained
    assert meter_of(graph, graph, np.array([1.0, 2.0, 3.0])).sqnr_db == -LIMIT_DB


def test_another_shape_is_no_rounding() -> None:
    gap = meter_of(None, np.ones(3), np.ones(4))
    assert gap.sqnr_db == -LIMIT_DB
    assert not math.isnan(gap.limit_db)


def test_the_farthest_from_its_limit_comes_first(rng: np.random.Generator) -> None:
    meter = GapMeter(batch=8, limit_db=30.0)
    good, bad = rng.normal(size=50), rng.normal(size=50)
    graph = {"good": good, "bad": bad}
    meter.add(None, graph, {"good": good, "bad": bad * 1.5}, ["good", "bad"])
    assert [gap.output for gap in meter.gaps()] == ["bad", "good"]
    assert [gap.explained for gap in meter.gaps()] == [False, True]
    assert meter.gaps()[0].batch == 8
