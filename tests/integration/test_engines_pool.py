"""EnginePool under load: right answers, none lost, memory flat, one failure harms no other."""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from artefacts.errors import BusyError, InputError, RequestError

WIDTH = 16


@pytest.fixture(scope="module")
def engine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2x + 1, dynamic batch."""
    folder = tmp_path_factory.mktemp("pool")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["m"]),
            helper.make_node("Add", ["m", "one"], ["y"]),
        ],
        "line",
        [info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [
            numpy_helper.from_array(np.float32(2), "two"),
            numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "line.onnx")
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(folder / "line.onnx", folder / "line.engine", options)
    return folder / "line.engine"


def test_32_threads_get_their_own_answers_and_memory_stays(
    engine_path: Path, rng: np.random.Generator
) -> None:
    threads, requests = 32, 1000
    seeds = rng.integers(0, 2**32, threads)

    def client(pool: engines.EnginePool, seed: int, count: int) -> int:
        own = np.random.default_rng(seed)
        right = 0
        for _ in range(count):
            x = own.normal(size=(int(own.integers(1, 4)), WIDTH)).astype(np.float32)
            right += bool(np.allclose(pool({"x": x})["y"], 2 * x + 1))
        return right

    with (
        engines.EnginePool(engine_path, 2, max_waiting=threads) as pool,
        ThreadPoolExecutor(threads) as clients,
    ):
        list(clients.map(lambda seed: client(pool, seed, 50), seeds))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        right = sum(clients.map(lambda seed: client(pool, seed, requests), seeds))
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        statistics = pool.statistics()
    assert right == threads * requests
    assert statistics.served == threads * (requests + 50)
    assert (statistics.failed, statistics.rejected, statistics.timed_out) == (0, 0, 0)
    assert (statistics.in_use, statistics.waiting) == (0, 0)
    assert grown_kb < 32 << 10


def test_failing_requests_harm_no_other(engine_path: Path, rng: np.random.Generator) -> None:
    bad = {"x": np.zeros((1, WIDTH + 1), np.float32)}
    x = rng.normal(size=(1, WIDTH)).astype(np.float32)
    with engines.EnginePool(engine_path, 2) as pool:
        for _ in range(10):
            with pytest.raises(RequestError, match=str(WIDTH + 1)):
                pool(bad)
            np.testing.assert_allclose(pool({"x": x})["y"], 2 * x + 1, rtol=1e-6)
        assert (pool.statistics().served, pool.statistics().failed) == (10, 10)


@pytest.fixture
def request_() -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, WIDTH), np.float32)}


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; a broken pool fails here instead of hanging."""
    for _ in range(5000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("the other thread never got there")


def test_waiting_is_bounded_and_timed(engine_path: Path, request_: dict[str, np.ndarray]) -> None:
    with (
        engines.EnginePool(engine_path, 1, max_waiting=1) as pool,
        ThreadPoolExecutor(1) as other,
    ):
        with pool.borrow():
            with pytest.raises(BusyError, match=r"still waiting after 0\.01 s"):
                pool(request_, timeout_s=0.01)
            waiting = other.submit(pool, request_)
            until(lambda: pool.statistics().waiting == 1)
            with pytest.raises(BusyError, match="has 1 requests waiting, expected at most 1"):
                pool(request_)
            busy = pool.statistics()
        assert (busy.in_use, busy.rejected, busy.timed_out) == (1, 1, 1)
        assert waiting.result(timeout=10)["y"].shape == (1, WIDTH)
        assert pool.statistics().wait_s > 0


def test_first_come_first_served(engine_path: Path, request_: dict[str, np.ndarray]) -> None:
    order: list[int] = []

    def client(pool: engines.EnginePool, number: int) -> None:
        with pool.borrow() as engine:
            order.append(number)
            engine(request_)

    with engines.EnginePool(engine_path, 1) as pool, ThreadPoolExecutor(5) as clients:
        with pool.borrow():
            for number in range(5):
                clients.submit(client, pool, number)
                until(lambda number=number: pool.statistics().waiting == number + 1)
        until(lambda: len(order) == 5)
    assert order == [0, 1, 2, 3, 4]


def test_an_answer_that_comes_too_late_is_dropped(
    engine_path: Path, request_: dict[str, np.ndarray]
) -> None:
    with engines.EnginePool(engine_path, 1) as pool:
        with pytest.raises(BusyError, match=r"still running after 0\.0 s"):
            pool(request_, timeout_s=0.0)
        assert pool.statistics().timed_out == 1
        assert pool(request_)["y"].shape == (1, WIDTH)


def test_close_waits_for_running_requests_and_turns_others_away(
    engine_path: Path, request_: dict[str, np.ndarray]
) -> None:
    pool = engines.EnginePool(engine_path, 2)
    with ThreadPoolExecutor(1) as other:
        with pool.borrow() as engine:
            closing = other.submit(pool.close)
            until(lambda: not pool_is_open(pool, request_))
            assert not closing.done()
            assert engine(request_)["y"].shape == (1, WIDTH)
        closing.result(timeout=10)
    with pytest.raises(RequestError, match="pool is closed"):
        pool(request_)
    pool.close()


def pool_is_open(pool: engines.EnginePool, request_: dict[str, np.ndarray]) -> bool:
    try:
        pool(request_)
    except RequestError:
        return False
    return True


def test_a_fork_is_told(engine_path: Path, request_: dict[str, np.ndarray]) -> None:
    with engines.EnginePool(engine_path, 1) as pool:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # Forking a process with threads is what this test is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                pool(request_)
            except RequestError as err:
                os.write(writing, str(err).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        assert f"made in process {os.getpid()} and used in {child}, its fork" in said
        assert pool(request_)["y"].shape == (1, WIDTH)


@pytest.mark.parametrize(("size", "waiting"), [(0, None), (-1, None), (1, -1)])
def test_sizes_that_make_no_sense(engine_path: Path, size: int, waiting: int | None) -> None:
    with pytest.raises(InputError, match=f"pool has size {size} and max_waiting {waiting}"):
        engines.EnginePool(engine_path, size, max_waiting=waiting)
