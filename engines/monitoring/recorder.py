"""A fair sample of real requests on disk, to calibrate with: never in a request's way.

What a request pays is a random number, for the few that are kept a copy. A thread of its own
writes. Where it cannot follow, or the disk is full, samples are lost and counted; requests never.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from artefacts.errors import InputError
from engines.monitoring.folder import RecorderFolder, encoded
from engines.monitoring.rows import axes_of, row_of
from engines.monitoring.value_counts import ValueCounts
from engines.tensors import numpy_dtype

if TYPE_CHECKING:
    from engines.manifest import Manifest

__all__ = ["Recorder", "RecorderStatistics"]

logger = logging.getLogger(__name__)

Row = Mapping[str, NDArray[Any]]
_MOST_WAITING = 8  # samples in memory
_SAVE_EVERY = 100  # requests, of counts and state


@dataclass(frozen=True, kw_only=True)
class RecorderStatistics:
    """What a recorder has done. Counters only grow, ``kept`` and ``bytes`` within their limits.

    Attributes:
        seen: requests that were answered.
        drawn: those that the share chose, of earlier runs with the same folder, too.
        kept: samples on disk now.
        bytes: of them.
        dropped: samples lost because the disk could not follow, or for the limit of bytes.
        failed: samples that could not be written.
        error: what the system last said of that; empty for nothing.
    """

    seen: int
    drawn: int
    kept: int
    bytes: int
    dropped: int
    failed: int
    error: str


class Recorder:
    """Keeps a uniform sample of an engine's requests (a reservoir), as ``--calib-data`` takes it.

        recorder = Recorder("samples/", share=0.01, limit=500)
        engine = engines.load("model.engine", record=recorder)

    Inputs of requests may be personal data: nothing is recorded unless a recorder is given. Of a
    batch one sample is taken; requests on a GPU are not. One folder belongs to one process.

    Args:
        folder: empty, new, or filled by a recorder before.
        share: of the requests, to draw from.
        limit: most samples on disk.
        limit_bytes: most bytes on disk.
        inputs: whether inputs are kept; else only counts and extremes of their values, in
            ``inputs.json``.

    Raises:
        InputError: a share or limit that makes no sense.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        share: float = 0.01,
        limit: int = 500,
        limit_bytes: int = 1 << 30,
        inputs: bool = True,
    ) -> None:
        if not 0 < share <= 1 or limit < 1 or limit_bytes < 1:
            raise InputError(
                f"recorder has share {share}, limit {limit} and limit_bytes {limit_bytes}, "
                "expected a share above 0 and up to 1, and limits of at least 1; correct them"
            )
        self.folder = Path(folder)
        self._share, self._limit, self._limit_bytes = share, limit, limit_bytes
        self._keeps_inputs = inputs
        self._guard = threading.Lock()
        self._waiting: queue.Queue[tuple[int, Row] | None] = queue.Queue(_MOST_WAITING)
        self._files: RecorderFolder | None = None
        self._counts: dict[str, ValueCounts] = {}
        self._seen = self._drawn = self._dropped = self._failed = self._written = 0
        self._error = ""
        self._closed = False

    def attach(self, manifest: Manifest) -> None:
        """Begin to record an engine; ``engines.load`` does it.

        Raises:
            InputError: the folder cannot be used, the recorder is closed, or records an engine
                with other inputs.
        """
        inputs = {spec.name: [spec.dtype, list(spec.shape)] for spec in manifest.inputs}
        odd = [s for s in manifest.inputs if numpy_dtype(s.dtype).kind not in "biuf"]
        if odd and self._keeps_inputs:
            raise InputError(
                f"input {odd[0].name} is {odd[0].dtype}, which no .npz file holds, expected a type "
                "of numpy's; record with inputs=False"
            )
        with self._guard:
            if self._closed:
                raise InputError(
                    f"recorder of {self.folder} is closed, expected an open one; make a new one"
                )
            if self._files is not None:
                self._files.check_inputs(inputs)
                return
            files = RecorderFolder(self.folder, inputs)
            try:
                self._counts = files.read_counts() or {name: ValueCounts() for name in inputs}
                files.trim(self._limit if self._keeps_inputs else 0, self._limit_bytes)
            except InputError:
                files.close()
                raise
            self._files, self._drawn = files, files.considered
            self._axes = axes_of(manifest.passport)
            self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
            self._thread.start()

    def observe(self, arrays: Mapping[str, Any]) -> None:
        """Hear of an answered request."""
        with self._guard:
            self._seen += 1
            if self._closed or random.random() >= self._share:
                return
            self._drawn += 1
            slot = self._slot()
        row = None if slot is None else row_of(arrays, self._axes, random.getrandbits(30))
        if slot is None or row is None:
            return
        try:
            copied = {name: array.copy() for name, array in row.items()}
            self._waiting.put_nowait((slot, copied))
        except (queue.Full, MemoryError):
            with self._guard:
                self._dropped += 1

    def statistics(self) -> RecorderStatistics:
        """Counters, and what lies on disk."""
        with self._guard:
            files = self._files
            return RecorderStatistics(
                seen=self._seen,
                drawn=self._drawn,
                kept=0 if files is None else len(files.sizes),
                bytes=0 if files is None else files.size_bytes,
                dropped=self._dropped,
                failed=self._failed,
                error=self._error,
            )

    def close(self) -> None:
        """Write what waits, then leave the folder; engines that had it go on without."""
        with self._guard:
            if self._closed or self._files is None:
                self._closed = True
                return
            self._closed = True
        self._waiting.put(None)
        self._thread.join()
        self._files.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _slot(self) -> int | None:
        """Where the request just drawn goes: each of n has the same chance to be on disk."""
        if not self._keeps_inputs or self._drawn <= self._limit:
            return self._drawn - 1
        slot = random.randrange(self._drawn)
        return slot if slot < self._limit else None

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._try_to_save(*item)
        self._save_rest()

    def _try_to_save(self, slot: int, row: Row) -> None:
        try:
            self._save(slot, row)
        except (OSError, InputError) as err:
            self._note_failure(err)

    def _save(self, slot: int, row: Row) -> None:
        files = self._files
        assert files is not None
        self._written += 1
        if not self._keeps_inputs:
            for name, array in row.items():
                self._counts[name].add(array)
        else:
            data = encoded(row)
            with self._guard:
                if files.size_bytes - files.sizes.get(slot, 0) + len(data) > self._limit_bytes:
                    # No more than fit: from now on a sample takes the place of another.
                    self._limit = max(1, min(self._limit, len(files.sizes)))
                    self._dropped += 1
                    return
            files.save_sample(slot, data)
        if self._written % _SAVE_EVERY == 0:
            self._save_state(files)

    def _save_state(self, files: RecorderFolder) -> None:
        if not self._keeps_inputs:
            files.save_counts({name: counts.to_json() for name, counts in self._counts.items()})
        files.save_state(self._drawn)

    def _save_rest(self) -> None:
        assert self._files is not None
        try:
            self._save_state(self._files)
        except (OSError, InputError) as err:
            self._note_failure(err)

    def _note_failure(self, err: Exception) -> None:
        with self._guard:
            self._failed += 1
            first, self._error = not self._error, str(err)
        if first:
            logger.warning("recorder of %s cannot write: %s; requests go on", self.folder, err)
