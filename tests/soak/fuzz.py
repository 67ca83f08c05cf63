"""Mutated files at every reader, each with an alarm: a reader may not hang either."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from artefacts.errors import BuilderError
from tests.soak.figures import Figure
from tests.soak.mutations import mutated, random_mutations
from tests.soak.readers import READERS, Reader

__all__ = ["fuzz"]

LONGEST_S = 20


class HangError(Exception):
    """A reader took too long."""


def fuzz(seconds: float, seed: int) -> Iterator[Figure]:
    """Hand-made files first, then random changes; ``seconds`` for all readers together."""
    rng = np.random.default_rng(seed)
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as folder:
        for name, reader in READERS.items():
            end_s = time.monotonic() + seconds / len(READERS)
            made, random = Figure(attack=f"{name}, by hand"), Figure(attack=f"{name}, random")
            for data in reader.hostile:
                made.count(*_attempt(reader, data, Path(folder)))
            while time.monotonic() < end_s:
                data = mutated(reader.valid, random_mutations(rng))
                random.count(*_attempt(reader, data, Path(folder)))
            if made.tried:
                yield made
            yield random


def _attempt(reader: Reader, data: bytes, folder: Path) -> list[str]:
    path = folder / reader.name
    path.write_bytes(data)
    signal.alarm(LONGEST_S)
    try:
        reader.read(path)
    except BuilderError as err:
        return ["a message of more than 2,000 characters"] if len(str(err)) > 2000 else []
    except HangError:
        return [f"took more than {LONGEST_S} s"]
    except Exception as err:
        return [type(err).__name__]
    finally:
        signal.alarm(0)
    return []


def _hang(number: int, frame: object) -> None:
    raise HangError
