"""Where activations become statistics: levels, duplicates, NaN, checkpoints. No runtime in here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from artefacts.errors import ArtefactError, DataError, ModelError
from calibrators.statistics import counting as native
from calibrators.statistics.statistics import SUBSETS, Statistics, subsets_of
from calibrators.statistics.tensor_statistics import TensorStatistics

__all__ = ["Activations", "Checkpoint", "Collector"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What the model computed for one sample.

    Attributes:
        name: of the sample, for messages.
        digest: of the sample.
        values: tensor name → array.
    """

    name: str
    digest: str
    values: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where and how often to write the statistics while they grow.

    Attributes:
        path: the ``*.stats.npz``; one that exists is continued.
        every_samples: write after this many samples,
        every_s: or after this many seconds, whichever comes first.
    """

    path: Path
    every_samples: int = 1000
    every_s: float = 30.0


class Collector:
    """Statistics of a fixed set of tensors while samples come in.

    Args:
        graph_hash: of the graph that the activations come from.
        nodes: tensor name → what computes it, for messages, e.g. "Conv stem/conv".
        preprocess: the preprocessing spec as a dict.
        checkpoint: None to write nothing.

    Raises:
        ArtefactError: the checkpoint is of another graph, preprocessing or placement.
    """

    def __init__(
        self,
        graph_hash: str,
        nodes: Mapping[str, str],
        *,
        preprocess: Mapping[str, Any] | None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._graph_hash = graph_hash
        self._nodes = dict(nodes)
        self._preprocess = preprocess
        self._checkpoint = checkpoint
        self._seen: set[str] = set()
        # Apart by how many subsets a sample is in, so that each is counted once, where it stays.
        self._parts = [
            {name: TensorStatistics() for name in self._nodes} for _ in range(SUBSETS + 1)
        ]
        self._resumed: Statistics | None = None
        # In NumPy one thread counts at a time: two at once would hand Python's lock to and fro,
        # and take longer than one after the other (measured).
        alone = threading.Lock()
        self._locks = {
            name: alone if native.library is None else threading.Lock() for name in self._nodes
        }
        self._entrance = threading.Condition()
        self._inside = 0  # threads that are counting: what they have counted is no whole sample
        self._spoilt = False
        self._unsaved = 0
        self._saved_at_s = time.monotonic()
        if checkpoint is not None and checkpoint.path.exists():
            self._resume(checkpoint.path)

    @property
    def seen(self) -> frozenset[str]:
        """Digests of the samples counted so far."""
        return frozenset(self._seen)

    def add(self, group: Sequence[Activations]) -> None:
        """Count the activations of some samples, none of which was counted before.

        May be called from several threads.

        Raises:
            DataError: NaN or Inf, with tensor, node and sample.
            ModelError: a tensor that does not hold floats.
        """
        with self._entrance:
            self._entrance.wait_for(lambda: not (self._inside and self._is_due()))
            self._inside += 1
        whole = False
        try:
            for name in self._nodes:
                self._count(name, group)
            whole = True
        finally:
            with self._entrance:
                self._inside -= 1
                self._spoilt |= not whole
                if whole:
                    self._seen.update(sample.digest for sample in group)
                    self._unsaved += len(group)
                self._entrance.notify_all()  # who wakes up waits for the checkpoint, or its error
                if not self._inside and self._is_due():
                    self.save()

    def statistics(self) -> Statistics:
        """What was counted so far."""
        whole, *subsets = (self._level(level) for level in range(SUBSETS + 1))
        return Statistics(
            graph_hash=self._graph_hash,
            preprocess=self._preprocess,
            samples=tuple(self._seen),
            tensors=whole,
            subsets=tuple(subsets),
        )

    def save(self) -> None:
        """Write the checkpoint now, where there is one to write."""
        if self._checkpoint is not None:
            self.statistics().save(self._checkpoint.path)
            self._unsaved, self._saved_at_s = 0, time.monotonic()

    def _count(self, name: str, samples: Sequence[Activations]) -> None:
        with self._locks[name]:
            for sample in samples:
                values = sample.values[name]
                if values.dtype.kind != "f":
                    raise ModelError(
                        f"tensor {name} ({self._nodes[name]}) holds {values.dtype}, expected "
                        "floats; leave its layer out of the placement"
                    )
                cell = self._parts[subsets_of(sample.digest)][name]
                before = cell.nan, cell.inf  # another thread may have met a NaN, and refuses it
                cell.add(values)
                if (cell.nan, cell.inf) != before:
                    self._refuse(name, sample)

    def _level(self, level: int) -> dict[str, TensorStatistics]:
        """Statistics of the samples that are in at least so many subsets."""
        parts: list[Mapping[str, TensorStatistics]] = list(self._parts[level:])
        if self._resumed is not None:
            parts.append((self._resumed.tensors, *self._resumed.subsets)[level])
        levels = {name: TensorStatistics() for name in self._nodes}
        for part in parts:
            for name, cell in levels.items():
                cell.merge(part[name])
        return levels

    def _refuse(self, name: str, sample: Activations) -> None:
        cell = TensorStatistics.of(sample.values[name])
        raise DataError(
            f"tensor {name}, computed by {self._nodes[name]}, has {cell.nan} NaN and "
            f"{cell.inf} Inf among {sample.values[name].size} values for sample "
            f"{sample.name}, expected finite ones; mend the sample or keep this layer in "
            "floating point"
        )

    def _is_due(self) -> bool:
        """Whether a checkpoint has to be written as soon as nobody is counting."""
        return (
            self._checkpoint is not None
            and not self._spoilt
            and (
                self._unsaved >= self._checkpoint.every_samples
                or time.monotonic() - self._saved_at_s >= self._checkpoint.every_s
            )
        )

    def _resume(self, path: Path) -> None:
        found = Statistics.load(path)
        mine = self.statistics()
        for what, old, new in (
            ("graph", found.graph_hash[:12], mine.graph_hash[:12]),
            ("preprocessing", found.preprocess, mine.preprocess),
            ("tensors", sorted(found.tensors), sorted(mine.tensors)),
            ("number of subsets", len(found.subsets), len(mine.subsets)),
        ):
            if old != new:
                raise ArtefactError(
                    f"checkpoint {path} is of another run: its {what} is {_short(old)}, expected "
                    f"{_short(new)}; delete it or choose another file"
                )
        self._resumed = found
        self._seen = set(found.samples)
        logger.info("continuing %s after %d samples", path, len(self._seen))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
