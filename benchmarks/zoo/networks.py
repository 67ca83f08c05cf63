"""All networks of the zoo by name."""

from __future__ import annotations

from benchmarks.zoo.exported import EXPORTED
from benchmarks.zoo.packages_images import IMAGES
from benchmarks.zoo.packages_other import OTHER
from benchmarks.zoo.packages_sound import SOUND

__all__ = ["NETWORKS"]

NETWORKS = {network.name: network for network in (*IMAGES, *SOUND, *OTHER, *EXPORTED)}
