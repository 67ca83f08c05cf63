"""Products of matrices on all cores: parts in threads of our own, one thread in each.

The threads that a BLAS library starts for a product spin until all have done their part. Where
other work has one of the cores, that is tens of milliseconds for a product of one, and an
improvement makes thousands of them: MobileNetV2 took 51 s beside one busy core instead of 16 s.
Ours sleep. What a part is does not depend on the machine, so neither does the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from artefacts.machine import usable_cores

__all__ = ["in_parallel", "parts", "product", "single_threaded_products"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_COLUMNS = 128  # of a part


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """One thread for each product of numpy's, for as long as it is open."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


def in_parallel(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """What ``work`` makes of each item, in order; never more at once than there are cores."""
    left, cores = iter(items), usable_cores()
    first = list(islice(left, 2))
    if cores == 1 or len(first) < 2:
        yield from map(work, first)
        yield from map(work, left)
        return
    with ThreadPoolExecutor(cores) as pool:
        waiting = [pool.submit(work, item) for item in (*first, *islice(left, cores - 2))]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, item) for item in islice(left, 1)]


def parts(count: int) -> list[slice]:
    """Columns of a matrix in parts, each enough for a product to be quick."""
    return [slice(start, start + _COLUMNS) for start in range(0, count, _COLUMNS)]


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left @ right`` of two matrices, (N, K) and (K, M), some columns at a time."""
    found = list(in_parallel(lambda part: left @ right[:, part], parts(right.shape[1])))
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


@cache
def _libraries() -> ThreadpoolController:
    """What numpy has loaded: looking for it takes milliseconds."""
    return ThreadpoolController()
