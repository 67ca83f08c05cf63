"""Two builds of one engine write the same files: the second waits for the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

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
    new = [folder for folder in made.parents if not folder.exists()]
    make_folder(made)
    with ExitStack() as stack:
        stack.callback(_remove_empty, new)
        with writing(made):
            stack.enter_context(
                job_lock(made, lambda: screen.add(f"waiting for another build of {made}"))
            )
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    """A job that was refused before it wrote anything leaves no folder."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
