"""Which samples may be seen when: to calibrate, to choose by, to report on.

With ``--eval-data``, half of it (by content) chooses between mixed-precision candidates and the
other half is what is reported. Without, the calibration data is divided: three fifths calibrate, a
fifth chooses, a fifth is reported on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibrators import Preprocess, Sample, Samples
from quantization.search.splits import split_digests

__all__ = ["SEED", "Part", "digests_of", "divide", "learning_part"]

SEED = 0
LEARNING_SHARE = 0.6
KEPT_BYTES = 512 << 20


class Part:
    """Some samples of a source; a source itself.

    Args:
        samples: the source.
        rows: which of them.
        digests: of all samples of the source, where they are known: to find them out is to read
            and to hash every one.
    """

    def __init__(
        self, samples: Samples, rows: Sequence[int], digests: Sequence[str] | None = None
    ) -> None:
        self._samples = samples
        self._rows = tuple(sorted(rows))
        self._digests = digests
        self._kept: tuple[Sample, ...] | None = None

    def keep(self) -> None:
        """Hold the decoded samples for the next passes, where memory allows it."""
        first = next(iter(self), None)
        size = sum(array.nbytes for array in first.inputs.values()) if first else 0
        if size * len(self) <= KEPT_BYTES:
            self._kept = tuple(self)

    @property
    def digests(self) -> list[str]:
        """Of its samples, in their order."""
        if self._digests is None:
            return [sample.digest for sample in self]
        return [self._digests[row] for row in self._rows]

    @property
    def path(self) -> str:
        """Where they come from."""
        return self._samples.path

    @property
    def preprocess(self) -> Preprocess | None:
        """The spec that was applied."""
        return self._samples.preprocess

    @property
    def unlabelled(self) -> str:
        """Why samples carry no labels; empty where they do."""
        return self._samples.unlabelled

    @property
    def unused(self) -> str:
        """How much else lies in the folder."""
        return self._samples.unused

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self._samples.classes

    def __iter__(self) -> Iterator[Sample]:
        if self._kept is not None:
            return iter(self._kept)
        wanted = frozenset(self._rows)
        head = self._samples[: self._rows[-1] + 1] if self._rows else ()
        return (sample for row, sample in enumerate(head) if row in wanted)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> Part:
        return Part(self._samples, self._rows[rows], self._digests)


def digests_of(samples: Samples) -> list[str]:
    """Of all samples, in their order; they are read for it where they are not known."""
    if isinstance(samples, Part):
        return samples.digests
    return [sample.digest for sample in samples]


def divide(samples: Samples, *, share: float) -> tuple[Part, Part]:
    """Two parts by content, the first with this share of the distinct samples.

    Args:
        samples: read once here for their digests, where those are not known.
        share: above 0 and below 1.

    Raises:
        DataError: fewer than two distinct samples.
    """
    digests = digests_of(samples)
    first, second = split_digests(digests, selection_share=share, seed=SEED)
    return Part(samples, first, digests), Part(samples, second, digests)


def learning_part(samples: Samples) -> tuple[Part, Part]:
    """Calibration data that must also be judged by: what to learn from, and the rest."""
    return divide(samples, share=LEARNING_SHARE)
