"""Running and counting at the same time.

Each worker takes some samples, runs the model on them and counts what came out. The model runs
without Python's lock, so while one worker counts, the others run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from calibrators.samples.data import Batch
from calibrators.samples.rows import Layout, Run
from calibrators.statistics.collector import Activations, Collector

__all__ = ["Pipeline"]

_GROUP_BYTES = 32 << 20  # activations are counted at the latest when so much is held


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """How a model is run and its activations are counted.

    Attributes:
        run: the model; what it returns stays as it is.
        run_in_place: the same, but the next run of the same thread overwrites what it returns.
        layout: of the activations.
        collector: counts them.
        workers: runs at the same time.
        group: samples to count together, where their activations are small.
    """

    run: Run
    run_in_place: Run
    layout: Layout
    collector: Collector
    workers: int
    group: int

    def process(self, feeds: Iterator[Batch], done: Callable[[int], None]) -> None:
        """Run all feeds; ``done`` is called from this thread with samples that were counted."""
        runs = 1  # of the model in one task; more once activations are known to be small
        pool = ThreadPoolExecutor(self.workers, "observe")
        waiting: set[Future[tuple[int, int]]] = set()
        try:
            while task := list(itertools.islice(feeds, runs)):
                waiting.add(pool.submit(self._in_place if runs == 1 else self._together, task))
                if len(waiting) > self.workers:
                    waiting, held_bytes = _finish(waiting, done)
                    fit = min(self.group, _GROUP_BYTES // max(held_bytes, 1))
                    runs = max(1, fit // self.layout.size)
            while waiting:
                waiting, _ = _finish(waiting, done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_place(self, task: Sequence[Batch]) -> tuple[int, int]:
        """Run and count one sample after the other; number of samples, bytes of a sample."""
        count = held_bytes = 0
        for batch in task:
            for sample, values in self.layout.activations(self.run_in_place, batch):
                found = Activations(name=sample.name, digest=sample.digest, values=values)
                self.collector.add([found])
                count += 1
                held_bytes = max(held_bytes, _bytes(found))
        return count, held_bytes

    def _together(self, task: Sequence[Batch]) -> tuple[int, int]:
        """Run first and count then; number of samples, bytes of a sample."""
        found = [
            Activations(name=sample.name, digest=sample.digest, values=values)
            for batch in task
            for sample, values in self.layout.activations(self.run, batch)
        ]
        self.collector.add(found)
        return len(found), max(map(_bytes, found))


def _bytes(sample: Activations) -> int:
    return sum(array.nbytes for array in sample.values.values())


def _finish(
    waiting: set[Future[tuple[int, int]]], done: Callable[[int], None]
) -> tuple[set[Future[tuple[int, int]]], int]:
    """Wait for some to end; those still waited for, and the bytes of the largest sample."""
    ended, left = wait(waiting, return_when=FIRST_COMPLETED)
    results = [future.result() for future in ended]
    for count, _ in results:
        done(count)
    return left, max(held_bytes for _, held_bytes in results)
