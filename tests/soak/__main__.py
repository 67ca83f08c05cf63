"""``python -m tests.soak``: attack for as long as asked, and print the figures.

make soak MINUTES=30
"""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.soak.engines import compare_engines
from tests.soak.faults import double_builds, full_disks, kills, loads_during_rebuilds
from tests.soak.figures import Figure, table
from tests.soak.fuzz import fuzz
from tests.soak.memory import memory_by_shapes
from tests.soak.recorder import record_under_load
from tests.soak.service import load_service

ATTACKS = ("fuzz", "kills", "builds", "disks", "service", "memory", "recorder", "engines")


def main() -> int:
    """Exit code 1 where something did not survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all attacks together")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    parser.add_argument("--only", choices=ATTACKS, action="append")
    given = parser.parse_args()
    chosen = given.only or ATTACKS
    share_s = given.minutes * 60 / len(chosen)
    figures: list[Figure] = []

    def show(*found: Figure) -> None:
        figures.extend(found)
        print(table(list(found)).split("\n", 2)[2], flush=True)

    print(f"seed {given.seed}\n" + table([]), flush=True)
    if "fuzz" in chosen:
        for figure in fuzz(share_s, given.seed):
            show(figure)
    if "kills" in chosen:  # a killed command and a whole one take some 10 s together
        for figure in kills(max(1, int(share_s / 90)), given.seed):
            show(figure)
    if "builds" in chosen:
        show(loads_during_rebuilds(share_s / 3), double_builds(max(1, int(share_s / 20))))
    if "disks" in chosen:
        for figure in full_disks(max(1, int(share_s / 45)), given.seed):
            show(figure)
    if "service" in chosen:
        show(*load_service(share_s, given.seed))
    if "recorder" in chosen:  # 100,000 requests take some 90 s
        show(record_under_load())
    if "engines" in chosen:
        for figure in compare_engines(share_s, given.seed):
            show(figure)
    if "memory" in chosen:
        print(f"memory kept by 100 batch sizes: {memory_by_shapes(100):.0f} MB")
    return int(any(figure.wrong for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
