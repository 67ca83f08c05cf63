"""Samples that an engine was calibrated with do not count as a test of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from artefacts.errors import DataError
from calibrators.samples.data import Sample

__all__ = ["refuse_calibration_samples"]


def refuse_calibration_samples(
    samples: Iterable[Sample], calibrated: Mapping[str, Iterable[str]]
) -> Iterator[Sample]:
    """The samples as they are, until one was calibrated with.

    Args:
        samples: to be evaluated on.
        calibrated: engine → digests of its calibration samples, as its manifest lists them.

    Raises:
        DataError: a sample is among them.
    """
    owners = {digest: engine for engine, digests in calibrated.items() for digest in digests}
    for sample in samples:
        if owners and (engine := owners.get(sample.digest)) is not None:
            raise DataError(
                f"sample {sample.name} is one of the calibration samples of {engine}, expected "
                "none: its ranges were fitted to it, and accuracy would flatter; evaluate on "
                "other samples"
            )
        yield sample
