"""Which samples may be seen when: parts of the data by content, and a guard between them.

A search that sees the samples its result is reported on promises too much. Calibration sees its
own data, the search sees the selection part, and the drop is reported on the test part. A sample
belongs to a part by the hash of its content, so order, file names and copies change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from artefacts.errors import DataError

__all__ = ["check_disjoint", "split_digests"]


def split_digests(
    digests: Sequence[str], *, selection_share: float = 0.5, seed: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Positions of the samples to select by and of those to report on.

    Args:
        digests: hex SHA-256 of each sample's content; copies go to one part together.
        selection_share: of the distinct samples, above 0 and below 1.
        seed: another seed, another split.

    Raises:
        DataError: fewer than 2 distinct samples, or a share outside (0, 1).
    """
    if not 0 < selection_share < 1:
        raise DataError(
            f"selection share is {selection_share}, expected above 0 and below 1; choose e.g. 0.5"
        )
    distinct = sorted(set(digests), key=lambda digest: _rank(digest, seed))
    if len(distinct) < 2:
        raise DataError(
            f"{len(distinct)} distinct labelled samples were given, expected at least 2: some to "
            "search by and others to report on; give more"
        )
    # Rounding may leave a part empty; each has at least one sample.
    count = min(max(round(len(distinct) * selection_share), 1), len(distinct) - 1)
    chosen = set(distinct[:count])
    selection = tuple(i for i, digest in enumerate(digests) if digest in chosen)
    test = tuple(i for i, digest in enumerate(digests) if digest not in chosen)
    return selection, test


def check_disjoint(parts: Mapping[str, Sequence[str]]) -> None:
    """Refuse parts that share a sample.

    Args:
        parts: name of a part, e.g. "calibration" → digests of its samples.

    Raises:
        DataError: a sample is in two parts.
    """
    owner: dict[str, str] = {}
    for name, digests in parts.items():
        for digest in set(digests):
            other = owner.setdefault(digest, name)
            if other != name:
                shared = len(set(digests) & set(parts[other]))
                raise DataError(
                    f"{shared} samples are in the {other} data and in the {name} data (the first "
                    f"has SHA-256 {digest[:12]}), expected none: what is tuned on a sample "
                    "cannot be judged by it; take them out of one"
                )


def _rank(digest: str, seed: int) -> str:
    # Hashed again: an order by the digest alone would be the same for every seed.
    return hashlib.sha256(f"{seed} {digest}".encode()).hexdigest()
