"""Running and counting at the same time.

Each worker takes some samples, runs the model on them and counts what came out. The model runs
without Python's lock, so while one worker counts, the others run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from calibrators.collector import Activations, Collector
from calibrators.data import Batch
from calibrators.rows import Layout, Run

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
        first = next(feeds, None)
        if first is None:
            return
        held = self._activations([first])
        self.collector.add(held)
        done(len(first.samples))
        size_bytes = sum(array.nbytes for sample in held for array in sample.values.values())
        del held
        runs = min(self.group // len(first.samples), _GROUP_BYTES // max(size_bytes, 1))
        runs = max(runs, 1)

        def work(task: Sequence[Batch]) -> int:
            if runs == 1:
                self._count_in_place(task[0])
            else:
                self.collector.add(self._activations(task))
            return sum(len(batch.samples) for batch in task)

        tasks = iter(lambda: list(itertools.islice(feeds, runs)), [])
        pool = ThreadPoolExecutor(self.workers, "observe")
        try:
            waiting: set[Future[int]] = set()
            for task in tasks:
                waiting.add(pool.submit(work, task))
                if len(waiting) > self.workers:
                    waiting = _finish(waiting, done)
            while waiting:
                waiting = _finish(waiting, done)
        finally:
            pool.shutdown(cancel_futures=True)

    def _activations(self, task: Sequence[Batch]) -> list[Activations]:
        return [
            Activations(name=sample.name, digest=sample.digest, values=values)
            for batch in task
            for sample, values in self.layout.activations(self.run, batch)
        ]

    def _count_in_place(self, batch: Batch) -> None:
        for sample, values in self.layout.activations(self.run_in_place, batch):
            found = Activations(name=sample.name, digest=sample.digest, values=values)
            self.collector.add([found])


def _finish(waiting: set[Future[int]], done: Callable[[int], None]) -> set[Future[int]]:
    """Wait for some to end; those still waited for."""
    ended, left = wait(waiting, return_when=FIRST_COMPLETED)
    for future in ended:
        done(future.result())
    return left
