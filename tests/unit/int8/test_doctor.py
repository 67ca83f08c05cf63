"""The diagnosis: whatever machine this is, each target and each extra has its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomllib

from artefacts.errors import MissingLibraryError
from engines import RUNTIMES, has_module
from int8.doctor import EXTRAS, diagnose, gain_of_gpu
from int8.main import main

ROOT = Path(__file__).parents[3]


def test_the_report_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert code in (0, 2)
    for title in ("this machine", "targets", "not installed", *RUNTIMES):
        assert title in out
    assert ("works" in out) or code == 2


def test_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["targets"].keys() == RUNTIMES.keys()
    assert found["auto"] in RUNTIMES
    assert found["machine"]["software"]["python"]
    for module in EXTRAS:
        assert (module in found["missing"]) != has_module(module)


def test_a_target_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise MissingLibraryError(f"no {module}; install it with: pip install '.[{extra}]'")

    monkeypatch.setattr("engines.tensorrt.library.require", missing)
    for name, extra in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "rtx")):
        target = diagnose()["targets"][name]
        assert target["works"] is False
        assert f"pip install '.[{extra}]'" in target["obstacle"]


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        ("8.7", "INT8 tensor cores"),
        ("7.5", "INT8 tensor cores"),
        ("7.0", "DP4A"),
        ("6.1", "DP4A"),
        ("6.0", "no INT8 arithmetic"),
        ("", "unknown"),
    ],
)
def test_what_a_gpu_gains(capability: str, said: str) -> None:
    assert said in gain_of_gpu({"compute_capability": capability})


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {extra for extra, _ in EXTRAS.values()} <= project["optional-dependencies"].keys()
    assert project["scripts"]["int8"] == "int8.main:main"
