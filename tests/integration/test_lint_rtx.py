"""The linter and NVIDIA's own parser agree: what is fatal is refused, what is clean is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphs.operators import INTEGER_OPS
from quantization.lint.lint import RULES, lint
from quantization.lint.operators import UNSUPPORTED_OPS
from tests.lint_models import BROKEN, CLEAN, lint_model, with_domain
from tests.lint_settings import UNREAD
from tests.rtx_parser import Verdict, parse, supports

ROOT = Path(__file__).parents[2]
_FATAL = [name for name, rule in RULES.items() if rule.severity == "fatal"]
# The parser of TensorRT-RTX 1.7.1 ends its process on a computed scale instead of refusing it.
_CRASHES = {"scale-constant"}
# Read as something else, with a warning.
_CHANGED = {"uint8": "Defaulting to INT8"}


@pytest.mark.parametrize("rule", sorted(set(_FATAL) - _CRASHES))
def test_fatal_model_is_refused_or_changed(rule: str) -> None:
    verdict = parse(lint_model(*BROKEN[rule]), build=True)
    if rule in _CHANGED:
        assert any(_CHANGED[rule] in warning for warning in verdict.warnings)
    else:
        assert verdict.errors


@pytest.mark.parametrize("found", UNREAD)
def test_settings_are_refused_by_the_parser(found: str) -> None:
    assert parse(lint_model(*UNREAD[found])).errors


@pytest.mark.parametrize("rule", sorted(_CRASHES))
def test_fatal_model_ends_the_builder(rule: str) -> None:
    code = (
        "from tests.lint_models import BROKEN, lint_model; from tests.rtx_parser import parse; "
        f"raise SystemExit(bool(parse(lint_model(*BROKEN[{rule!r}]), build=True).errors))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("rule", sorted(set(RULES) - set(_FATAL)))
def test_other_findings_build(rule: str) -> None:
    assert _built(parse(lint_model(*BROKEN[rule]), build=True))


@pytest.mark.parametrize("name", CLEAN)
def test_clean_model_builds(name: str) -> None:
    model = lint_model(*CLEAN[name])
    assert lint(model) == ()
    assert _built(parse(model, build=True))


def test_domains_of_onnx_are_read_by_name() -> None:
    scaler = with_domain("ai.onnx.ml", "y = ai.onnx.ml.Scaler <offset=[0.5], scale=[2.0]> (x)")
    assert parse(scaler).errors
    assert _built(parse(with_domain("ai.onnx.preview", "y = ai.onnx.preview.Relu (x)"), build=True))


def test_operator_lists_are_the_parsers() -> None:
    for name in sorted(UNSUPPORTED_OPS | {op for op in INTEGER_OPS if "." not in op}):
        assert not supports(name), name


def _built(verdict: Verdict) -> bool:
    return not verdict.errors and verdict.plan is not None
