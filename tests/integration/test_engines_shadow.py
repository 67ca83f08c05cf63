"""A shadow beside a pool: compared fairly, within its bounds, and never in a request's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import engines
from artefacts.errors import EngineError, InputError, RequestError
from engines.serving.agreement import Agreement
from tests.integration.test_engines_replace import WIDTH, line

WAIT_S = 60


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line(tmp_path_factory.mktemp("old"), "old", 1.0)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line(tmp_path_factory.mktemp("new"), "new", 1.5)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def request(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(size=(2, WIDTH)).astype(np.float32)}


def test_it_says_how_far_answers_agree_and_what_each_takes(
    old: Path, new: Path, rng: np.random.Generator
) -> None:
    signal = noise = 0.0
    with engines.EnginePool(old, 1) as pool:
        shadow = pool.start_shadow(new, share=1.0)
        for number in range(1, 31):
            inputs = request(rng)
            answer = pool(inputs)["y"]
            np.testing.assert_allclose(answer, inputs["x"] + 1, rtol=1e-6)
            signal += float((answer.astype(np.float64) ** 2).sum())
            noise += 0.25 * answer.size
            inputs["x"][:] = answer[:] = np.nan  # the caller's own: no matter to the shadow
            until(lambda number=number: shadow.statistics().compared == number)
        found = shadow.statistics()
        assert pool.shadow is shadow
    (output,) = found.outputs
    assert (output.name, output.same, output.other_shapes) == ("y", 1.0, 0)  # all plus a half
    assert output.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert (found.drawn, found.dropped, found.failed) == (30, 0, 0)
    assert found.sha256 == engines.read_manifest(new).engine_sha256
    for times in ("serving", "shadow"):
        p50, p99 = (getattr(found, f"{times}_{which}_ms") for which in ("p50", "p99"))
        assert 0 < p50 <= p99
    assert pool.shadow is None  # the pool is closed


def test_a_share_of_the_requests_is_drawn(old: Path, new: Path, rng: np.random.Generator) -> None:
    with engines.EnginePool(old, 1) as pool:
        shadow = pool.start_shadow(new, share=0.2)
        for _ in range(500):
            pool(request(rng))
        pool.stop_shadow()
        assert pool.shadow is None
        drawn = shadow.statistics().drawn
        assert 30 < drawn < 180  # 100 with a standard deviation of 9
        for _ in range(20):
            pool(request(rng))
        assert shadow.statistics().drawn == drawn


def test_one_that_cannot_follow_costs_comparisons_and_no_request(
    old: Path, new: Path, rng: np.random.Generator
) -> None:
    may_run = threading.Event()
    with engines.EnginePool(old, 1) as pool:
        shadow = pool.start_shadow(new, share=1.0)
        run = shadow._engine._runner.run
        shadow._engine._runner.run = lambda *a, **k: may_run.wait(WAIT_S) and run(*a, **k)
        for _ in range(100):
            assert pool(request(rng))["y"].shape == (2, WIDTH)
        waited = shadow.statistics()
        may_run.set()
        until(lambda: shadow.statistics().compared + shadow.statistics().dropped == 100)
        assert pool.statistics().served == 100
    assert (waited.drawn, waited.compared) == (100, 0)
    assert 91 <= waited.dropped <= 92  # eight wait, and one may have begun


def test_one_that_fails_is_counted_with_its_sentence(
    old: Path, new: Path, rng: np.random.Generator
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RequestError("device lost")

    with engines.EnginePool(old, 1) as pool:
        shadow = pool.start_shadow(new, share=1.0)
        shadow._engine._runner.run = fail
        pool(request(rng))
        until(lambda: shadow.statistics().failed == 1)
        found = shadow.statistics()
        assert "device lost" in found.error
        assert (found.compared, found.outputs[0].same, found.serving_p50_ms) == (0, None, None)
        pool(request(rng))


def test_one_that_requests_do_not_fit_is_refused_and_nothing_has_changed(
    old: Path, new: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    wider = line(tmp_path, "wider", 5.0, width=WIDTH + 1)
    with engines.EnginePool(old, 1) as pool:
        kept = pool.start_shadow(new, share=1.0)
        for path, share, error, said in (
            (wider, 0.5, EngineError, r"has inputs x float32 \[\?, 17\], expected"),
            (tmp_path / "none.engine", 0.5, EngineError, "does not exist"),
            (new, 0.0, InputError, "share 0.0, expected one above 0"),
            (new, 1.5, InputError, "share 1.5, expected"),
        ):
            with pytest.raises(error, match=said):
                pool.start_shadow(path, share=share)
        assert pool.shadow is kept
        pool(request(rng))
        until(lambda: kept.statistics().compared == 1)


def test_a_change_of_the_engine_ends_it(old: Path, new: Path) -> None:
    with engines.EnginePool(old, 1) as pool:
        first = pool.start_shadow(new)
        second = pool.start_shadow(new)
        assert not first._thread.is_alive()
        pool.replace(new)
        assert pool.shadow is None
        assert not second._thread.is_alive()


def test_a_shadow_is_not_recorded_nor_watched(
    old: Path, new: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    with (
        engines.Recorder(tmp_path / "s", share=1.0) as recorder,
        engines.EnginePool(old, 1, record=recorder) as pool,
    ):
        shadow = pool.start_shadow(new, share=1.0)
        for number in range(1, 6):
            pool(request(rng))
            until(lambda number=number: shadow.statistics().compared == number)
        assert recorder.statistics().seen == 5


def test_agreement_by_kind_of_output() -> None:
    """Scores by their best class, whole numbers by value, floats by level; shapes apart."""
    agreement = Agreement(["scores", "classes", "mask", "boxes"])
    assert agreement.report()[0].sqnr_db is None
    served = {
        "scores": np.array([[0.1, 0.9], [0.8, 0.2]], np.float32),
        "classes": np.array([1, 0, 2, 2]),
        "mask": np.array([[[1.0, 2.0]]], np.float32),
        "boxes": np.zeros((3, 4), np.float32),
    }
    found = {
        "scores": np.array([[0.6, 0.4], [0.7, 0.3]], np.float32),
        "classes": np.array([1, 0, 2, 1]),
        "mask": np.array([[[1.0, 2.0]]], np.float32),
        "boxes": np.zeros((2, 4), np.float32),
    }
    agreement.add(served, found)
    scores, classes, mask, boxes = agreement.report()
    assert (scores.same, classes.same, mask.same, boxes.same) == (0.5, 0.75, None, None)
    assert scores.sqnr_db == pytest.approx(10 * np.log10(1.5 / 0.52), abs=1e-5)
    assert (classes.sqnr_db, mask.sqnr_db, boxes.sqnr_db) == (None, 150.0, None)
    assert (boxes.other_shapes, mask.other_shapes) == (1, 0)
    agreement.add(served, {**found, "mask": np.full((1, 1, 2), np.nan, np.float32)})
    assert agreement.report()[2].sqnr_db == -150.0
