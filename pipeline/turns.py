"""Two builds of one engine write the same files: the second waits for the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from artefacts.faults import writing
from artefacts.files import make_folder
from artefacts.litter import job_lock
from pipeline.calibration import statistics_path
from pipeline.job import Job
from pipeline.screen import Screen

__all__ = ["one_at_a_time"]


@contextmanager
def one_at_a_time(job: Job, screen: Screen) -> Iterator[None]:
    """Hold what a job makes against other jobs; parts of the samples are observed side by side.

    Raises:
        InputError: its folder cannot be made or written to.
    """
    alone = job.data.shard is None
    made = job.paths.engine if alone else statistics_path(job.paths, job.data)
    make_folder(made)
    with ExitStack() as stack:
        with writing(made):
            stack.enter_context(
                job_lock(made, lambda: screen.add(f"waiting for another build of {made}"))
            )
        yield
