"""Sound, text, tables and graphs: made, but with the statistics of what they stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["magnitudes", "mel_frames", "molecule", "ring_graph", "table_row", "tokens", "voice"]

Floats = NDArray[np.float32]


def voice(generator: np.random.Generator, count: int, rate: int = 16000) -> Floats:
    """Something like speech: harmonics under moving formants, syllables, pauses, a little noise.

    Args:
        generator: of what is random.
        count: samples.
        rate: samples a second.

    Returns:
        (count,), within -1 to 1.
    """
    time = np.arange(count) / rate
    pitch = generator.uniform(90, 230) * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = [
        centre * (1 + 0.25 * np.sin(2 * np.pi * generator.uniform(1, 4) * time))
        for centre in generator.uniform((300, 900, 2000), (800, 2000, 3200))
    ]
    sound = np.zeros(count)
    for harmonic in range(1, 25):
        frequency = harmonic * pitch
        strength = sum(np.exp(-(((frequency - f) / 180) ** 2)) for f in formants) + 0.02
        sound += np.where(frequency < rate / 2, strength, 0) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2, 5) * time + 3), -0.2, 1) + 0.2
    sound *= syllables * (np.sin(2 * np.pi * 0.4 * time + generator.uniform(0, 6)) > -0.7)
    sound /= np.abs(sound).max() + 1e-9
    noise = generator.normal(0, 10 ** generator.uniform(-3.5, -1.5), count)
    return (generator.uniform(0.2, 0.9) * sound + noise).clip(-1, 1).astype(np.float32)


def magnitudes(sound: Floats, size: int, step: int) -> Floats:
    """Magnitude of the short-time Fourier transform, Hann window: (frames, size // 2 + 1)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::step]
    return np.asarray(np.abs(np.fft.rfft(frames * np.hanning(size), axis=-1)), np.float32)


def mel_frames(sound: Floats, bands: int, *, size: int = 400, step: int = 160) -> Floats:
    """Logarithm of energies in triangular bands on the mel scale at 16 kHz: (frames, bands)."""
    power = magnitudes(sound, size, step) ** 2
    highest = 2595 * np.log10(1 + 8000 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / 16000)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.clip(np.minimum(rise, fall), 0, None)
    return np.asarray(np.log10(np.maximum(power @ weights.T, 1e-10)), np.float32)


def tokens(
    generator: np.random.Generator, count: int, vocabulary: int, *, first: int = 1
) -> NDArray[np.int64]:
    """Numbers of tokens as often as words are in a text (Zipf), in a fixed random order: (count,).

    Args:
        generator: of what is random.
        count: tokens.
        vocabulary: how many there are.
        first: the smallest that a text has; those below are special.
    """
    order = np.random.default_rng(1).permutation(np.arange(first, vocabulary))
    ranks = np.minimum(generator.zipf(1.3, count), len(order)) - 1
    return np.asarray(order[ranks], np.int64)


def table_row(generator: np.random.Generator, columns: int) -> Floats:
    """A row of a table of correlated columns, as standardised data has: (1, columns)."""
    mixing = np.random.default_rng(2).normal(size=(columns, columns)) / np.sqrt(columns)
    return np.asarray(generator.normal(size=(1, columns)) @ mixing, np.float32)


def ring_graph(generator: np.random.Generator, nodes: int) -> NDArray[np.int64]:
    """Edges of a molecule-like graph, both directions: a chain with some rings, (2, edges)."""
    pairs = [(i, i + 1) for i in range(nodes - 1)]
    pairs += [(i, i + 5) for i in range(0, nodes - 5, 7) if generator.integers(2)]
    one = np.array(pairs, np.int64).T
    return np.concatenate([one, one[::-1]], axis=1)


def molecule(generator: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """A graph with features of atoms and bonds, its Laplacian's spectrum and random walks."""
    nodes = int(generator.integers(12, 30))
    edges = ring_graph(generator, nodes)
    near = np.zeros((nodes, nodes))
    near[edges[0], edges[1]] = 1
    degree = near.sum(axis=1)
    values, vectors = np.linalg.eigh(np.diag(degree) - near)
    step = near / degree[:, None]
    walks = [np.diag(np.linalg.matrix_power(step, power)) for power in range(1, 17)]
    one_hot = np.eye(85)[generator.integers(0, 12, nodes)]
    return {
        "feat": one_hot.astype(np.float32),
        "edge_feat": np.eye(13)[generator.integers(0, 4, edges.shape[1])].astype(np.float32),
        "edge_index": edges,
        "laplacian_eigvec": vectors[:, 1:9].astype(np.float32),
        "laplacian_eigval": np.repeat(values[None, 1:9], nodes, axis=0).astype(np.float32),
        "rw_return_probs": np.stack(walks, axis=1).astype(np.float32),
        "batch": np.zeros(nodes, np.int64),
        "graph_slots": np.zeros(1, np.float32),
    }
