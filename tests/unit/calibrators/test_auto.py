"""Methods chosen by error on samples that no range was taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from artefacts.errors import ArtefactError, DataError
from artefacts.files import sha256_bytes
from calibrators.ranges.auto import (
    CANDIDATES,
    _without,
    choose_method,
    choose_per_tensor,
    hold_out,
)
from calibrators.ranges.methods import compute_range, compute_ranges
from calibrators.ranges.mse import quantization_error
from calibrators.ranges.ranges import Ranges
from calibrators.samples.samples import Sample
from calibrators.statistics.collector import Activations, Collector
from calibrators.statistics.statistics import Statistics, TensorStatistics, subsets_of
from calibrators.statistics.tensor_statistics import folded


def statistics_of(sample: str, **tensors: NDArray[np.float64]) -> Statistics:
    cells = {name: TensorStatistics.of(values) for name, values in tensors.items()}
    return Statistics(graph_hash="g", preprocess=None, samples=(sample,), tensors=cells)


def samples_of(*values: int) -> list[Sample]:
    return [Sample(inputs={"x": np.full((1, 2), v, np.float32)}, name=f"{v}") for v in values]


def test_each_tensor_gets_what_errs_least_on_the_others(rng: np.random.Generator) -> None:
    """An outlier that held-out samples do not repeat is clipped, one that they do is kept."""
    normal = rng.standard_normal((2, 200_000))
    once = np.append(normal[0], 60.0)
    calibrated = statistics_of("a", once=once, ceiling=np.clip(3 * normal[0], 0, 6))
    held_out = statistics_of("b", once=normal[1], ceiling=np.clip(3 * normal[1], 0, 6))
    ranges = choose_per_tensor(calibrated, held_out)
    assert ranges.amax("once") < 6
    assert ranges["once"].method in CANDIDATES
    assert ranges.amax("ceiling") == 6.0
    assert (ranges.method, ranges.samples) == ("auto", 2)
    for method in CANDIDATES:
        assert f"{method} " in ranges["once"].why


def test_choice_is_the_smallest_sampled_error(rng: np.random.Generator) -> None:
    values = rng.standard_t(4, (2, 100_000))
    calibrated, held_out = statistics_of("a", x=values[0]), statistics_of("b", x=values[1])

    def sampled(amax: float) -> float:
        scale = amax / 127
        return float(
            np.mean((values[1] - np.clip(np.rint(values[1] / scale), -127, 127) * scale) ** 2)
        )

    found = choose_per_tensor(calibrated, held_out).amax("x")
    best = min(
        sampled(compute_ranges(calibrated, method=method).amax("x")) for method in CANDIDATES
    )
    assert sampled(found) == pytest.approx(best, rel=0.02)


def collected(arrays: Sequence[Mapping[str, NDArray[np.float64]]]) -> Statistics:
    """Statistics with subsets, as observing leaves them; sample i has the i-th arrays."""
    collector = Collector("g", dict.fromkeys(arrays[0], "node"), preprocess=None)
    for number, values in enumerate(arrays):
        collector.add([Activations(name=str(number), digest=digest(number), values=values)])
    return collector.statistics()


def digest(number: int) -> str:
    return sha256_bytes(str(number).encode())


def test_halves_judge_each_other(rng: np.random.Generator) -> None:
    """As if the outer half had been observed apart, but the range is taken from all."""
    arrays = [
        {"x": rng.standard_t(3, 4000), "relu": np.maximum(rng.standard_normal(4000), 0)}
        for _ in range(24)
    ]
    statistics = collected(arrays)
    inner = [n for n in range(24) if subsets_of(digest(n)) > 0]
    found = choose_per_tensor(statistics)
    for name in ("x", "relu"):
        tried = TensorStatistics.of(np.concatenate([arrays[n][name] for n in inner]))
        judge = TensorStatistics.of(
            np.concatenate([arrays[n][name] for n in range(24) if n not in inner])
        )
        amax = [compute_range(tried, method).amax for method in CANDIDATES]
        errors = quantization_error(judge, np.array(amax))
        best = CANDIDATES[int(errors.argmin())]
        assert found[name].method == best
        assert found.amax(name) == compute_range(statistics.tensors[name], best).amax
        assert f"on {24 - len(inner)} samples held out: minmax" in found[name].why
    assert found.samples == 24


@pytest.mark.parametrize("larger", ["inner", "outer"])
def test_taking_a_half_away_leaves_the_other(larger: str, rng: np.random.Generator) -> None:
    inner, outer = rng.standard_normal(500), rng.standard_normal(700)
    (inner if larger == "inner" else outer)[0] = 50.0
    part, rest = TensorStatistics.of(inner), TensorStatistics.of(outer)
    whole = part.copy()
    whole.merge(rest)
    found = _without(whole, part)
    expected = folded(rest.counts, whole.exponent - rest.exponent)
    assert found.counts.tolist() == expected.tolist()
    assert (found.count, found.zeros) == (rest.count, rest.zeros)
    assert rest.amax <= found.amax <= rest.amax + whole.bin_width


def test_too_few_samples_have_no_halves(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="1 samples do not make two halves"):
        choose_per_tensor(collected([{"x": rng.standard_normal(9)}]))


def test_dead_tensors_stay_dead() -> None:
    dead = np.zeros(4)
    ranges = choose_per_tensor(statistics_of("a", x=dead), statistics_of("b", x=dead))
    assert ranges["x"].method == "dead"


def test_calibration_samples_are_no_judges(rng: np.random.Generator) -> None:
    one = statistics_of("a", x=rng.standard_normal(9))
    with pytest.raises(ArtefactError, match="1 samples are in both"):
        choose_per_tensor(one, one)
    with pytest.raises(DataError, match="1 of 2 samples that judge"):
        choose_method(one, lambda _: 1.0, judges={"a", "b"})


def test_whole_model_takes_the_best_method(rng: np.random.Generator) -> None:
    statistics = statistics_of("a", x=rng.standard_normal(999))
    errors = {"minmax": 3.0, "entropy": 1.0, "mse": 2.0}
    seen: list[Ranges] = []

    def evaluate(ranges: Ranges) -> float:
        seen.append(ranges)
        return errors[ranges.method]

    choice = choose_method(statistics, evaluate, judges={"b"}, methods=list(errors))
    assert choice.ranges == compute_ranges(statistics, method="entropy")
    assert dict(choice.errors) == errors
    assert [ranges.method for ranges in seen] == list(errors)


def test_errors_that_are_no_numbers_do_not_win(rng: np.random.Generator) -> None:
    statistics = statistics_of("a", x=rng.standard_normal(99))
    nan_first = iter([float("nan"), 5.0])
    choice = choose_method(
        statistics, lambda _: next(nan_first), judges=(), methods=["minmax", "mse"]
    )
    assert choice.ranges.method == "mse"
    with pytest.raises(DataError, match="minmax, mse is NaN"):
        choose_method(statistics, lambda _: float("nan"), judges=(), methods=["minmax", "mse"])


def test_holding_out_splits_by_content() -> None:
    source = samples_of(*range(20), 3, 3)
    kept, held = hold_out(source, share=0.25)
    names = ([s.name for s in kept], [s.name for s in held])
    assert len(set(names[1])) == 5
    assert not set(names[0]) & set(names[1])
    assert sorted(names[0] + names[1]) == sorted(s.name for s in source)
    again = hold_out(source[::-1], share=0.25)
    assert {s.name for s in again[1]} == set(names[1])
    assert [s.name for s in held] == names[1]  # it can be read again


def test_at_least_one_sample_on_either_side() -> None:
    for share in (0.0, 1.0):
        kept, held = hold_out(samples_of(1, 2, 3), share=share)
        assert len(list(kept)) >= 1
        assert len(list(held)) >= 1
    with pytest.raises(DataError, match="1 different samples, expected at least 2"):
        hold_out(samples_of(1, 1))


def test_sources_are_read_lazily() -> None:
    reads = 0

    class Source:
        def __iter__(self) -> Iterator[Sample]:
            nonlocal reads
            for sample in samples_of(1, 2, 3):
                reads += 1
                yield sample

    kept, _ = hold_out(Source())
    assert reads == 3
    next(iter(kept))
    assert reads in (4, 5)
