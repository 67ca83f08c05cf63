"""Statistics of a model's activations: the file between observing and choosing ranges.

A ``*.stats.npz`` holds, for one prepared graph and one preprocessing, the statistics of every
observed tensor and the digests of the samples seen. It is an uncompressed zip of plain arrays:
``counts`` (S, T, 4096), the other numbers (S, T), and ``meta``, a JSON text with names and
digests; S = 1 + number of subsets, T = number of tensors. Two runs over the same samples write the
same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artefacts.errors import ArtefactError
from calibrators.statistics.stats_file import decode, digest_content, encode
from calibrators.statistics.tensor_statistics import BINS, TensorStatistics

__all__ = ["BINS", "Statistics", "TensorStatistics", "subsets_of"]

SUBSETS = 2  # nested: 1/2 and 1/4


def subsets_of(digest: str) -> int:
    """How many of the nested subsets (1/2, 1/4 of all samples) a sample belongs to.

    The digest decides, so the subsets do not depend on order, batches or shards.

    Args:
        digest: hex SHA-256 of a sample.
    """
    number = int(digest[-8:], 16)
    return next((level for level in range(SUBSETS) if number >> level & 1), SUBSETS)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of the tensors of one graph over a set of samples.

    Attributes:
        graph_hash: of the prepared graph (``graphs.identity``).
        preprocess: the preprocessing spec as a dict, None where samples are fed as they are.
        samples: digests of the samples seen, sorted.
        tensors: tensor name → statistics over all samples.
        subsets: the same over about 1/2 and about 1/4 of the samples (``subsets_of``), which tells
            how many samples were enough; empty where it was not recorded.
    """

    graph_hash: str
    preprocess: Mapping[str, Any] | None
    samples: tuple[str, ...]
    tensors: Mapping[str, TensorStatistics]
    subsets: tuple[Mapping[str, TensorStatistics], ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(set(self.samples)))
        if len(ordered) != len(self.samples):
            raise ArtefactError(
                f"statistics name {len(self.samples) - len(ordered)} samples twice, expected each "
                "once; observe the samples again"
            )
        object.__setattr__(self, "samples", ordered)
        object.__setattr__(self, "tensors", dict(sorted(self.tensors.items())))
        for subset in self.subsets:
            if set(subset) != set(self.tensors):
                raise ArtefactError(
                    f"a subset of the statistics has {len(subset)} tensors, expected the same "
                    f"{len(self.tensors)} as the whole; observe the samples again"
                )

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the content; equal for equal statistics."""
        return digest_content(*self._content())

    def save(self, path: str | Path) -> None:
        """Write a ``*.stats.npz``, all of it or nothing.

        Raises:
            InputError: the folder cannot be written to.
        """
        encode(path, *self._content())

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read a ``*.stats.npz``.

        Raises:
            InputError: no such file, or too large.
            ArtefactError: not such a file, damaged, or altered.
        """
        meta, levels = decode(path)
        tensors, *subsets = levels
        return cls(
            graph_hash=meta["graph_hash"],
            preprocess=meta["preprocess"],
            samples=tuple(meta["samples"]),
            tensors=tensors,
            subsets=tuple(subsets),
        )

    def merge(self, *others: Statistics) -> Statistics:
        """Statistics of all samples of this and the others together; none is changed.

        Raises:
            ArtefactError: they are of different graphs, preprocessings or tensors, or two of them
                have seen the same sample.
        """
        return functools.reduce(_merge, others, self)

    def _content(self) -> tuple[dict[str, Any], list[Mapping[str, TensorStatistics]]]:
        meta = {
            "graph_hash": self.graph_hash,
            "preprocess": None if self.preprocess is None else dict(self.preprocess),
            "samples": list(self.samples),
        }
        return meta, [self.tensors, *self.subsets]


def _merge(left: Statistics, right: Statistics) -> Statistics:
    if left.graph_hash != right.graph_hash:
        raise ArtefactError(
            f"statistics are of graphs {left.graph_hash[:12]} and {right.graph_hash[:12]}, "
            "expected one prepared graph; observe both parts on the same model"
        )
    if left.preprocess != right.preprocess:
        raise ArtefactError(
            f"statistics were taken with preprocessing {left.preprocess} and {right.preprocess}, "
            "expected the same; observe both parts with one spec"
        )
    if set(left.tensors) != set(right.tensors) or len(left.subsets) != len(right.subsets):
        odd = sorted(set(left.tensors) ^ set(right.tensors))[:3]
        raise ArtefactError(
            f"statistics are of {len(left.tensors)} and {len(right.tensors)} tensors (differing: "
            f"{', '.join(odd) or 'their subsets'}), expected the same; observe both parts with the "
            "same placement"
        )
    shared = sorted(set(left.samples) & set(right.samples))
    if shared:
        raise ArtefactError(
            f"{len(shared)} samples are in both statistics (the first has digest "
            f"{shared[0][:12]}), expected each in one only; shard the samples without overlap and "
            "remove duplicates"
        )
    return replace(
        left,
        samples=left.samples + right.samples,
        tensors=_added(left.tensors, right.tensors),
        subsets=tuple(map(_added, left.subsets, right.subsets)),
    )


def _added(
    left: Mapping[str, TensorStatistics], right: Mapping[str, TensorStatistics]
) -> dict[str, TensorStatistics]:
    added = {name: statistics.copy() for name, statistics in left.items()}
    for name, statistics in right.items():
        added[name].merge(statistics)
    return added
