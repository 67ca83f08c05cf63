"""EnginePool.replace under load: every request is answered, by one engine or the other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engines
from artefacts.errors import ClosedError, EngineError

WIDTH = 16


def line(folder: Path, name: str, added: float, width: int = WIDTH, **passport: object) -> Path:
    """y = x + added, dynamic batch."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "added"], ["y"])],
        "line",
        [info("x", TensorProto.FLOAT, ["N", width])],
        [info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(np.float32(added), "added")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"{name}.onnx")
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    path = folder / f"{name}.engine"
    engines.build(folder / f"{name}.onnx", path, options, engines.Passport(**passport))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line(tmp_path_factory.mktemp("old"), "old", 1.0)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line(tmp_path_factory.mktemp("new"), "new", 2.0)


def test_no_request_is_lost_while_engines_change(
    old: Path, new: Path, rng: np.random.Generator
) -> None:
    threads, requests = 8, 1250
    done = threading.Event()

    def client(pool: engines.EnginePool, seed: int) -> list[int]:
        own, answers = np.random.default_rng(seed), []
        for _ in range(requests):
            x = own.normal(size=(int(own.integers(1, 4)), WIDTH)).astype(np.float32)
            added = (pool({"x": x})["y"] - x).mean()
            assert min(abs(added - 1), abs(added - 2)) < 1e-4
            answers.append(round(float(added)))
        return answers

    def swap(pool: engines.EnginePool) -> int:
        swaps = 0
        while not done.is_set():
            pool.replace((new, old)[swaps % 2])
            swaps += 1
        return swaps

    with engines.EnginePool(old, 2, max_waiting=threads) as pool, ThreadPoolExecutor(9) as workers:
        swapping = workers.submit(swap, pool)
        clients = [workers.submit(client, pool, seed) for seed in rng.integers(0, 2**32, threads)]
        try:
            answers = [answer for worker in clients for answer in worker.result(timeout=300)]
        finally:
            done.set()
        assert swapping.result(timeout=60) >= 2
        statistics = pool.statistics()
    assert len(answers) == threads * requests == statistics.served
    assert {1, 2} == set(answers)
    assert (statistics.failed, statistics.rejected, statistics.timed_out) == (0, 0, 0)
    assert (statistics.size, statistics.in_use) == (2, 0)


def test_a_request_under_way_ends_on_the_engine_it_began_on(old: Path, new: Path) -> None:
    x = np.zeros((1, WIDTH), np.float32)
    with engines.EnginePool(old, 1) as pool:
        with pool.borrow() as borrowed:
            pool.replace(new)
            assert pool({"x": x})["y"][0, 0] == 2
            assert borrowed({"x": x})["y"][0, 0] == 1
            assert pool.statistics().in_use == 1
        with pytest.raises(ClosedError, match="engine is closed"):
            borrowed({"x": x})
        assert pool.manifest.engine_sha256 == engines.read_manifest(new).engine_sha256
        pool.replace(old)
        assert pool({"x": x})["y"][0, 0] == 1


def test_an_engine_that_requests_do_not_fit_is_refused_and_the_old_one_goes_on(
    old: Path, tmp_path: Path
) -> None:
    x = np.zeros((1, WIDTH), np.float32)
    wider = line(tmp_path, "wider", 5.0, width=WIDTH + 1)
    otherwise = line(tmp_path, "otherwise", 5.0, preprocess={"scale": 0.5})
    damaged = line(tmp_path, "damaged", 5.0)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with engines.EnginePool(old, 2) as pool:
        for path, said in (
            (wider, r"has inputs x float32 \[\?, 17\], expected x float32 \[\?, 16\]"),
            (otherwise, r"has preprocessing \{'scale': 0.5\}, expected None"),
            (damaged, r"bytes, expected"),
            (tmp_path / "none.engine", "does not exist"),
        ):
            with pytest.raises(EngineError, match=said):
                pool.replace(path)
            assert pool({"x": x})["y"][0, 0] == 1


def test_a_closed_pool_is_not_replaced(old: Path, new: Path) -> None:
    pool = engines.EnginePool(old, 1)
    pool.close()
    with pytest.raises(ClosedError, match="pool is closed"):
        pool.replace(new)
