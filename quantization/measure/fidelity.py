"""How close INT8 outputs are to the float ones, without labels.

    SQNR      = -10 log10( mean over float outputs of  Σ (y - y')² / Σ y² )   in dB, Σ over samples
    agreement = share of samples whose largest output is the same one
    KL        = mean over samples of Σ p ln(p / p'),  p = softmax(y), p' = softmax(y')

20 dB means that a tenth of the amplitude is noise; each bit of resolution is 6 dB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artefacts.decibels import sqnr_db
from artefacts.errors import ModelError
from quantization.measure.execution import Arrays, Run

__all__ = ["Fidelity", "compare", "run_all"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Outputs of one model against those of another.

    Attributes:
        sqnr_db: signal to noise in dB; infinite where the outputs are equal.
        agreement: 0 to 1; None where no output holds one score per class.
        kl: in nats, of the same output; None likewise.
        samples: how many were compared.
    """

    sqnr_db: float
    agreement: float | None
    kl: float | None
    samples: int


def run_all(run: Run, samples: Iterable[Arrays]) -> list[dict[str, Array]]:
    """Outputs of every sample, copied: those of onnxruntime stand in the arena of its session.

    One that is kept would keep all that the session ever held.
    """
    return [{name: value.copy() for name, value in run(sample).items()} for sample in samples]


def compare(run: Run, samples: Sequence[Arrays], exact: Sequence[Mapping[str, Array]]) -> Fidelity:
    """Run a model on samples and compare it with the exact outputs.

    Args:
        run: the model.
        samples: feeds, one sample each; at least one.
        exact: outputs of the reference for the same samples, of the same names.

    Raises:
        ModelError: an output is missing, of another shape, or NaN.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    divergence = 0.0
    same = rows = 0
    for number, (sample, wanted) in enumerate(zip(samples, exact, strict=True)):
        found = run(sample)
        for name, reference in wanted.items():
            if reference.dtype.kind != "f":
                continue
            actual = _checked(found, name, reference, number)
            energy = float((reference.astype(np.float64) ** 2).sum())
            error = float(((reference.astype(np.float64) - actual) ** 2).sum())
            signal[name] = signal.get(name, 0.0) + energy
            noise[name] = noise.get(name, 0.0) + error
        scores = _class_scores(wanted)
        if scores is not None:
            p, q = (values[scores].astype(np.float64) for values in (wanted, found))
            rows += len(p)
            same += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            divergence += _kl(p, q)
    return Fidelity(
        sqnr_db=_mean_sqnr_db(signal, noise),
        agreement=same / rows if rows else None,
        kl=divergence / rows if rows else None,
        samples=len(samples),
    )


def _checked(found: Mapping[str, Array], name: str, reference: Array, number: int) -> Array:
    actual = found.get(name)
    shape = None if actual is None else actual.shape
    if actual is None or shape != reference.shape or not np.isfinite(actual).all():
        raise ModelError(
            f"output {name} of the INT8 model on sample {number} has shape {shape} or NaN, "
            f"expected finite values of shape {reference.shape}; compare models of one graph"
        )
    return actual.astype(np.float64)


def _class_scores(outputs: Mapping[str, Array]) -> str | None:
    """The output with one score per class and sample, e.g. (1, 1000): the first of that kind."""
    for name, values in outputs.items():
        if values.dtype.kind == "f" and values.ndim == 2 and values.shape[1] > 1:
            return name
    return None


def _mean_sqnr_db(signal: Mapping[str, float], noise: Mapping[str, float]) -> float:
    """Each output counts by its own signal: boxes in pixels would drown scores below 1."""
    if not any(noise.values()):
        return math.inf
    shares = [noise[name] / signal[name] for name in signal if signal[name] > 0]
    mean = sum(shares) / len(shares) if shares else math.inf
    return -sqnr_db(mean, 1.0) if mean > 0 else -math.inf  # the mean is of noise over signal


def _kl(p: Array, q: Array) -> float:
    """Sum over rows of KL(softmax(p) ‖ softmax(q)); rows that sum to 1 are probabilities."""
    log_p, log_q = _log_probabilities(p), _log_probabilities(q)
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def _log_probabilities(scores: Array) -> Array:
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(np.maximum(scores, 1e-12)))
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
