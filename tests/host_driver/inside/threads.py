"""One context for all threads of a process, and none for its forks."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from artefacts.cuda import cuda_context
from artefacts.errors import RequestError, UnsupportedError
from calibrators.tensorrt.device_memory import CudaMemory
from engines.engine import Engine
from engines.environment import gpu_facts, has_gpu
from engines.serving import replacement
from engines.serving.pool import EnginePool
from tests.host_driver.control import NO_DEVICE, OUT_OF_MEMORY, HostDriver
from tests.host_driver.plans import engine, on_gpu, rows, runner


def elsewhere(work: Callable[[], None]) -> None:
    """Do it in a thread of its own; its error is ours."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()


def test_engines_that_come_and_go_keep_one_context(
    rng: np.random.Generator, driver: HostDriver
) -> None:
    for device in (0, 1):
        for _ in range(12):
            with engine(runner(device=device)) as made:
                x = rows(rng, 2)
                assert (made({"input": x})["output"] == 2 * x).all()
        assert driver.counts().pushed == 0
    assert driver.counts()[9:11] == (1, 1)


@pytest.mark.parametrize("where", ["made", "used", "closed"])
def test_close_in_another_thread(rng: np.random.Generator, driver: HostDriver, where: str) -> None:
    made, lent = [], []

    def make() -> None:
        made.append(engine(runner()))

    def use() -> None:
        for batch in (2, 2, 2, 9):
            x = rows(rng, batch)
            assert (made[0]({"input": x})["output"] == 2 * x).all()
        lent.append(made[0]({"input": x}, copy=False)["output"])
        lent.append(made[0]({"input": x}, on_device=True)["output"])

    for name, work in (("made", make), ("used", use), ("closed", lambda: made[0].close())):
        elsewhere(work) if name == where else work()
    assert driver.counts().streams == 0
    elsewhere(lent.clear)
    gc.collect()
    assert driver.counts().device_memory == driver.counts().pinned_memory == 0


def test_threads_share_a_pool(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, driver: HostDriver
) -> None:
    monkeypatch.setattr(replacement, "load", lambda path, **options: engine(runner()))
    inputs = [rows(rng, 1 + index % 5) for index in range(40)]

    def check(x: NDArray[np.float32]) -> bool:
        return bool((serving({"input": x}, timeout_s=60)["output"] == 2 * x).all())

    with EnginePool("m.engine", size=3, max_waiting=100) as serving:
        serving.warm_up()
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(check, inputs))
        driver.fail("cuStreamSynchronize", OUT_OF_MEMORY)
        with pytest.raises(UnsupportedError):
            serving({"input": inputs[0]})
        assert check(inputs[0])
        assert serving.statistics().failed == 1


def test_a_pool_that_cannot_be_filled_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, driver: HostDriver
) -> None:
    closed: list[Engine] = []
    close = Engine.close
    monkeypatch.setattr(Engine, "close", lambda each: (closed.append(each), close(each))[1])
    monkeypatch.setattr(replacement, "load", lambda path, **options: engine(runner()))
    driver.fail("cuStreamCreate", OUT_OF_MEMORY, call=3)
    with pytest.raises(UnsupportedError, match="no memory left to make a stream"):
        EnginePool("m.engine", size=4)
    assert len(closed) == 2
    assert driver.counts().streams == 0


def test_the_calibrators_memory(rng: np.random.Generator, driver: HostDriver) -> None:
    for _ in range(3):
        memory = CudaMemory()
        first = rows(rng, 4)
        address = memory.upload("input", first)
        assert memory.upload("input", rows(rng, 4)) == address
        memory.upload("other", rows(rng, 1))
        assert driver.counts().device_memory == 2
        elsewhere(memory.close)
        assert driver.counts().device_memory == 0
    driver.fail("cuMemAlloc_v2", OUT_OF_MEMORY, times=2)
    memory = CudaMemory()
    with pytest.raises(UnsupportedError, match="input of 64 bytes"):
        memory.upload("input", rows(rng, 4))
    memory.close()


def in_a_fork(work: Callable[[], None]) -> str:
    """What it raised there, or an empty text."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            work()
        except (RequestError, UnsupportedError) as err:
            said = str(err)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


def test_a_fork_is_told_what_to_do(rng: np.random.Generator) -> None:
    made = engine(runner())
    x = rows(rng, 2)
    made({"input": x})
    lent = [made({"input": x}, on_device=True)]

    def drop() -> None:
        lent.clear()
        made.close()
        gc.collect()

    expected = "CUDA does not survive a fork.*spawn"
    assert re.search(expected, in_a_fork(lambda: runner().close()))
    assert re.search(expected, in_a_fork(lambda: on_gpu(x) and None))
    assert "its fork, expected one process" in in_a_fork(lambda: made({"input": x}) and None)
    assert in_a_fork(drop) == ""
    assert (made({"input": x})["output"] == 2 * x).all()
    made.close()


def test_facts_of_a_fork_say_it_too(driver: HostDriver) -> None:
    cuda_context()

    def ask() -> None:
        gpu_facts.cache_clear()
        gpu_facts()

    assert re.search("no fork of a process that uses CUDA; .*'spawn'", in_a_fork(ask))


def test_facts_come_from_the_driver() -> None:
    assert gpu_facts(1) == {
        "name": "Host memory 1",
        "compute_capability": "8.6",
        "multiprocessors": "17",
        "driver_cuda": "12.9",
    }
    assert gpu_facts(2) is None


def test_no_gpu_is_one_sentence(driver: HostDriver) -> None:
    driver.fail("cuInit", NO_DEVICE)
    with pytest.raises(UnsupportedError, match=f"cannot be initialised .*CUDA error {NO_DEVICE}"):
        cuda_context(7)


def test_a_device_that_is_not_there() -> None:
    for device in (2, -1):
        with pytest.raises(
            UnsupportedError, match=f"GPU {device} is not there, expected one below"
        ):
            cuda_context(device)


def test_asking_for_a_gpu_does_not_initialise_cuda() -> None:
    """In a process of its own, since this one has: a child that is forked later can use it."""
    assert has_gpu()
    program = (
        "import os\n"
        "from engines.options import resolve_target\n"
        "from tests.host_driver.control import HostDriver\n"
        "assert resolve_target('auto') == 'tensorrt'\n"
        "assert not HostDriver().initialized()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    from tests.host_driver.plans import runner\n"
        "    runner().close()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
