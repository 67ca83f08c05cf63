"""Networks held against float, by samples that they were not fitted to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from artefacts.decibels import bounded_db
from graphs.comparable import comparable_outputs
from graphs.view import GraphView
from quantization.improve.improved import Improved
from quantization.improve.methods import Methods
from quantization.measure.execution import Arrays, load_int8, load_onnxruntime
from quantization.measure.fidelity import Fidelity, compare, run_all
from quantization.placement import Placement

__all__ = ["Comparison", "Trial"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one set of methods gave on the samples held out.

    Attributes:
        methods: what was done.
        fidelity: over all of them; of scores before their softmax or sigmoid, which would make
            some samples count a thousand times as much as others.
        mean_db: mean of the SQNR of each, by which the best is chosen: the SQNR over all is that
            of the few samples with most noise, which are others the next time.
    """

    methods: Methods
    fidelity: Fidelity
    mean_db: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Samples, and what the float network makes of them.

    Attributes:
        samples: feeds.
        outputs: tensors that are compared.
        exact: their values, a mapping for each sample.
    """

    samples: Sequence[Arrays]
    outputs: Sequence[str]
    exact: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, model: onnx.ModelProto, samples: Sequence[Arrays]) -> Comparison:
        """Run the float network.

        Raises:
            ModelError: it cannot be run.
        """
        outputs = comparable_outputs(GraphView(model))
        run = load_onnxruntime(model, outputs=outputs, scores=False)
        return cls(samples=samples, outputs=outputs, exact=run_all(run, samples))

    def trial(self, result: Improved, placement: Placement) -> Trial:
        """Run a network in INT8, and compare.

        Raises:
            ModelError: it cannot be run.
        """
        int8 = result.quantized(placement)
        run = load_int8(int8, outputs=self.outputs, scores=False)
        del int8
        found = run_all(run, self.samples)
        levels = [
            compare(lambda _, outputs=outputs: outputs, [feed], [wanted]).sqnr_db  # type: ignore[misc]
            for feed, outputs, wanted in zip(self.samples, found, self.exact, strict=True)
        ]
        answers = iter(found)
        trial = Trial(
            methods=result.methods,
            fidelity=compare(lambda _: next(answers), self.samples, self.exact),
            mean_db=float(np.mean([bounded_db(level) for level in levels])),
        )
        names = " ".join(result.methods.names) or "calibration alone"
        logger.info("SQNR %.2f dB on %d samples: %s", trial.mean_db, len(self.samples), names)
        return trial
