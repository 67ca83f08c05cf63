"""Parts of a product in threads of our own: the same result on any machine, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from artefacts import threads
from artefacts.threads import in_parallel, product, single_threaded_products
from quantization.improve.weights.rounding import largest_scale, second_moment
from quantization.improve.weights.wide import round_in_blocks


def blas_threads() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_libraries_take_one_thread_while_it_is_open() -> None:
    before = blas_threads()
    with single_threaded_products():
        assert blas_threads() <= {1}
    assert blas_threads() == before


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_answers_come_in_order_from_no_more_threads_than_cores(
    cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        return number**2

    assert list(in_parallel(work, range(count))) == [number**2 for number in range(count)]
    assert most <= cores


def test_an_error_of_a_part_is_an_error_of_the_whole() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda number: 1 // number, [1, 2, 0, 3]))


def moments(rng: np.random.Generator) -> NDArray[np.float64]:
    columns = rng.standard_normal((32768, 4, 40)).astype(np.float32)
    return second_moment(columns, columns)


def products(rng: np.random.Generator) -> NDArray[np.float64]:
    return product(rng.standard_normal((60, 70)), rng.standard_normal((70, 300)))


def blocks(rng: np.random.Generator) -> NDArray[np.int8]:
    weights = rng.standard_normal((1, 200, 520))
    read = rng.standard_normal((64, 1, 520)).astype(np.float32)
    return round_in_blocks(weights, largest_scale(weights), read, read, ridge=0.1)


@pytest.mark.parametrize("made", [moments, products, blocks])
def test_the_number_of_cores_changes_no_bit(
    made: Callable[[np.random.Generator], NDArray[np.generic]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(threads, "usable_cores", lambda cores=cores: cores)
        with single_threaded_products():
            found.append(made(np.random.default_rng(7)))
    assert found[0].size
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_a_product_is_that_of_its_parts(rng: np.random.Generator) -> None:
    left, right = rng.standard_normal((33, 50)), rng.standard_normal((50, 259))
    np.testing.assert_allclose(product(left, right), left @ right, rtol=1e-9, atol=1e-12)
