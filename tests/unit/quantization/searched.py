"""A chain whose groups cost and hurt what a table says, for the tests of the search."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import onnx
import pytest

from graphs.view import GraphView
from quantization.improve.improved import Improved
from quantization.improve.methods import NOTHING
from quantization.placement import Placement
from quantization.placement.fusion_groups import fusion_groups
from quantization.search.problem import Goal, Search
from tests.accuracy_models import calibrated, samples_of
from tests.networks import Builder

DB = "dB"


def chain(layers: int = 6) -> onnx.ModelProto:
    net = Builder(11)
    x = net.input("x", (1, 16, 6, 6))
    for _ in range(layers):
        x = net.relu(net.conv(x, 16))
    return net.build("chain", net.conv(x, 16))


class Fixture:
    """A chain of convolutions, calibrated, and the scores of a table of noises."""

    def __init__(self, rng: np.random.Generator, layers: int = 6) -> None:
        self.model = chain(layers)
        self.feeds = samples_of(self.model, rng, 2)
        self.placement: Placement
        self.placement, ranges = calibrated(self.model, self.feeds)
        self.improved = Improved(model=self.model, ranges=ranges, weights={}, methods=NOTHING)
        self.groups = fusion_groups(GraphView(self.model), self.placement)
        self.noise = dict(
            zip([g.name for g in self.groups], rng.lognormal(0, 2, len(self.groups)), strict=True)
        )
        self.saved = {g.name: float(rng.uniform(0.1, 1.0)) for g in self.groups}
        self.calls = 0

    def problem(self, goal: Goal, **given: Any) -> Search:
        """A search in it; ``score`` is that of the table where no other is given."""
        return Search(
            reference=self.model,
            improved=self.improved,
            placement=self.placement,
            samples=self.feeds,
            goal=goal,
            **({"score": self.score} | given),
        )

    def score(self, model: onnx.ModelProto) -> float:
        """Additive noise of the layers whose weight is behind a DequantizeLinear."""
        self.calls += 1
        made = {n.output[0]: n.op_type for n in model.graph.node}
        inside = [n for n in model.graph.node if n.op_type == "Conv"]
        names = [n.name for n in inside if made.get(n.input[1]) == "DequantizeLinear"]
        return -10 * math.log10(1e-3 + sum(self.noise[name] for name in names))

    def exhaustive(self, minimum: float) -> float:
        """The least cost of any candidate that meets the goal."""
        best = math.inf
        for flags in itertools.product((0, 1), repeat=len(self.groups)):
            noise = 1e-3 + sum(
                self.noise[g.name] for g, flag in zip(self.groups, flags, strict=True) if not flag
            )
            if -10 * math.log10(noise) >= minimum:
                cost = sum(
                    self.saved[g.name] for g, flag in zip(self.groups, flags, strict=True) if flag
                )
                best = min(best, cost)
        return best


def truthful(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivities that agree with the table."""
    from quantization.measure.fidelity import Fidelity
    from quantization.search import search as module
    from quantization.search.sensitivity import Sensitivity

    some = Fidelity(sqnr_db=1.0, agreement=None, kl=None, samples=1)
    found = [
        Sensitivity(
            group=group,
            alone=dataclasses.replace(some, sqnr_db=-10 * math.log10(fixture.noise[group.name])),
            without=some,
            gained=0.0,
        )
        for group in fixture.groups
    ]
    monkeypatch.setattr(module, "sensitivities", lambda *args, **kwargs: tuple(found))
