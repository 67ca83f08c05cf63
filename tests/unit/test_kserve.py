"""The KServe file of the service example: flags that the service has, fields that KServe has."""

from __future__ import annotations

import re

import yaml

from tests.unit.test_architecture import ROOT

EXAMPLE = ROOT / "examples" / "04_fastapi_service"


def test_its_flags_are_the_services_and_a_canary_is_a_share() -> None:
    service = yaml.safe_load((EXAMPLE / "inference_service.yaml").read_text())
    predictor = service["spec"]["predictor"]
    assert 0 <= predictor["canaryTrafficPercent"] <= 100
    flags = {word for word in predictor["containers"][0]["args"] if word.startswith("--")}
    known = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (EXAMPLE / "app.py").read_text()))
    assert flags <= known, flags - known
