"""Requests to engines of the cpu target: every layout, wrong ones, threads, forks."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import engines
from artefacts.errors import (
    RequestError,
    UnsupportedError,
)
from tests.engine_models import scaled_sum
from tests.integration.cpu_engines import Built, Floats, build, images


def test_arrays_of_every_layout_give_the_same(int8: Built, rng: np.random.Generator) -> None:
    import torch

    x = images(rng, 2)
    frozen = x.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2, 3, 8, 16), np.float32)
    wide[..., ::2] = x
    with engines.load(int8.engine) as engine:
        expected = engine({"input": x})["output"]
        layouts = {
            "Fortran order": np.asfortranarray(x),
            "strided": wide[..., ::2],
            "NHWC view": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
            "read-only": frozen,
            "reversed twice": x[::-1].copy()[::-1],
            "torch": torch.from_numpy(x),
            "torch, strided": torch.from_numpy(wide)[..., ::2],
        }
        for layout, array in layouts.items():
            assert (engine({"input": array})["output"] == expected).all(), layout


def test_wrong_requests_are_refused_and_harm_nothing(int8: Built, rng: np.random.Generator) -> None:
    import torch

    x = images(rng, 2)
    cases: list[tuple[object, str]] = [
        ({}, r"lacks the inputs \['input'\]"),
        ({"image": x}, r"lacks the inputs \['input'\] and has the unknown \['image'\]"),
        ({"input": x, "more": x}, r"unknown \['more'\], expected exactly \['input'\]"),
        (x, "request is a ndarray, expected a mapping"),
        ({"input": x.astype(np.float64)}, "has dtype float64, expected float32"),
        ({"input": x.astype(">f4")}, "has dtype >f4, expected float32"),
        ({"input": x.astype(np.int8)}, "has dtype int8, expected float32"),
        ({"input": x[0]}, r"shape \(3, 8, 8\), expected \(any, 3, 8, 8\)"),
        ({"input": x[:, :2]}, r"shape \(2, 2, 8, 8\), expected \(any, 3, 8, 8\)"),
        ({"input": x[:0]}, r"shape \(0, 3, 8, 8\), expected .* first dimension that is not empty"),
        ({"input": x.tolist()}, "is a list, expected a numpy array or another DLPack tensor"),
        ({"input": None}, "is a NoneType"),
        ({"input": torch.zeros(2, 3, 8, 8, requires_grad=True)}, "cannot be read by DLPack"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.float16)}, "has dtype float16"),
        ({"input": torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)}, "cannot be read by DLPack"),
    ]
    with engines.load(int8.engine) as engine:
        before = engine({"input": x})["output"]
        for request, said in cases:
            with pytest.raises(RequestError, match=said):
                engine(request)  # type: ignore[arg-type]
            assert (engine({"input": x})["output"] == before).all(), said


def test_nan_passes_and_does_not_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    """A value is the model's business: here it reaches the output, a ReLU may swallow it."""
    clean = rng.standard_normal((2, 4)).astype(np.float32)
    dirty = clean.copy()
    dirty[0, 1] = np.nan
    right = np.zeros((2, 4), np.int64)
    with engines.load(build(tmp_path, scaled_sum()).engine) as engine:
        before = engine({"left": clean, "right": right})["output"]
        found = engine({"left": dirty, "right": right})["output"]
        assert np.argwhere(np.isnan(found)).tolist() == [[0, 1]]
        assert (engine({"left": clean, "right": right})["output"] == before).all()


def test_what_only_the_runtime_can_see_is_a_request_error(tmp_path: Path) -> None:
    built = build(tmp_path, scaled_sum())
    left, right = np.ones((2, 4), np.float32), np.ones((2, 4), np.int64)
    with engines.load(built.engine) as engine:
        with pytest.raises(RequestError, match="request fails in OpenVINO"):
            engine({"left": left, "right": np.ones((3, 4), np.int64)})
        assert (engine({"left": left, "right": right})["output"] == 3).all()


def test_no_memory_is_an_error_and_the_engine_goes_on(
    int8: Built, rng: np.random.Generator
) -> None:
    x = images(rng, 1)
    with engines.load(int8.engine) as engine:
        before = engine({"input": x})["output"]
        with pytest.raises(UnsupportedError, match="memory is exhausted"):
            engine({"input": np.broadcast_to(x, (1 << 40, 3, 8, 8))})
        assert (engine({"input": x})["output"] == before).all()


def test_outputs_are_copies_unless_asked(int8: Built, rng: np.random.Generator) -> None:
    first, second = images(rng, 2), images(rng, 2)
    with engines.load(int8.engine) as engine:
        kept = engine({"input": first})["output"]
        value = kept.copy()
        lent = engine({"input": first}, copy=False)["output"]
        assert (lent == value).all()
        engine({"input": second})
        assert (kept == value).all()
        assert (lent != value).any()
        kept[:] = 0  # the caller's own


def test_the_callers_array_is_never_written(int8: Built, rng: np.random.Generator) -> None:
    x = images(rng, 2)
    before = x.copy()
    with engines.load(int8.engine) as engine:
        engine({"input": x})
    assert (x == before).all()


def test_closed_engines_say_so(int8: Built, rng: np.random.Generator) -> None:
    engine = engines.load(int8.engine)
    other = engine.clone()
    engine.close()
    engine.close()
    with pytest.raises(RequestError, match="engine is closed"):
        engine({"input": images(rng, 1)})
    with pytest.raises(RequestError, match="engine is closed"):
        engine.clone()
    with other:
        assert other({"input": images(rng, 1)})["output"].shape == (1, 16)


def test_closing_while_threads_call_ends_them_with_the_sentence(
    int8: Built, rng: np.random.Generator
) -> None:
    engine, x, said = engines.load(int8.engine), images(rng, 4), []

    def work() -> None:
        try:
            while True:
                engine({"input": x})
        except RequestError as err:
            said.append(str(err))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine({"input": x})
    engine.close()
    for thread in threads:
        thread.join(timeout=60)
    assert said == ["engine is closed, expected an open one; load it again"] * 4


def test_loading_and_calling_keep_memory_flat(int8: Built, rng: np.random.Generator) -> None:
    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def cycle() -> None:
        for _ in range(20):
            with engines.load(int8.engine) as engine:
                engine({"input": images(rng, 3)})

    cycle()
    before = resident_mib()
    cycle()
    assert resident_mib() - before < 8


def _call_in_child(engine: engines.Engine, x: Floats, answers: multiprocessing.Queue) -> None:
    try:
        engine({"input": x})
    except RequestError as err:
        answers.put(str(err))
    engine.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_told_to_load_its_own(int8: Built, rng: np.random.Generator) -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    with engines.load(int8.engine) as engine:
        x = images(rng, 1)
        before = engine({"input": x})["output"]
        child = fork.Process(target=_call_in_child, args=(engine, x, answers))
        child.start()
        said = answers.get(timeout=30)
        child.join(timeout=30)
        assert child.exitcode == 0
        assert f"loaded in process {os.getpid()} and called in {child.pid}" in said
        assert (engine({"input": x})["output"] == before).all()


@pytest.mark.parametrize("cloned", [False, True])
def test_threads_get_their_own_answers(int8: Built, rng: np.random.Generator, cloned: bool) -> None:
    inputs = [images(rng, 1 + i % 3) for i in range(8)]
    wrong: list[int] = []
    with engines.load(int8.engine) as engine:
        expected = [engine({"input": x})["output"] for x in inputs]

        def work(index: int) -> None:
            mine = engine.clone() if cloned else engine
            answers = [mine({"input": inputs[index]})["output"] for _ in range(20)]
            wrong.extend(index for answer in answers if (answer != expected[index]).any())
            if cloned:
                mine.close()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
