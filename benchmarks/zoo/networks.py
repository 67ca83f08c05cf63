"""All networks of the zoo by name."""

from __future__ import annotations

from benchmarks.zoo.exported import EXPORTED
from benchmarks.zoo.packages import PACKAGED

__all__ = ["NETWORKS"]

NETWORKS = {network.name: network for network in (*PACKAGED, *EXPORTED)}
