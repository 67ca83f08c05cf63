"""Files and functions stay small, or say why they do not."""

from __future__ import annotations

import ast

from tests.unit.test_architecture import ROOT, sources

MOST_LINES = 300
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 7
_CLASS = "a class inside, since its base is an optional library"
# A module, or a module and a function in it → why it is larger.
LARGE = {
    "benchmarks/accuracy/evaluation.py evaluate_all": "one pass for all that is to be known of it",
    "calibrators/statistics/observe.py observe": "the stage: what the command has flags for",
    "engines/loading.py load": "what a service decides when it starts",
    "quantization/qat/modules.py activation_quantizer": _CLASS,
    "quantization/qat/quantizer.py quantizer_class": _CLASS,
    "examples/04_fastapi_service/app.py create_app": "the routes of one application share its pool",
    "tests/networks/mobilenet.py _inverted_residual": "the columns of the papers' tables",
}


def test_modules_and_functions_are_small_or_say_why() -> None:
    large: dict[str, str] = {}
    for path in (p for p in sources() if p.suffix == ".py"):
        text, name = path.read_text(), str(path.relative_to(ROOT))
        if (lines := len(text.splitlines())) > MOST_LINES:
            large[name] = f"{lines} lines"
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                size, parameters = size_of(function)
                if size > MOST_FUNCTION_LINES or parameters > MOST_PARAMETERS:
                    said = f"{size} lines, {parameters} parameters"
                    large[f"{name} {function.name}"] = said
    assert {name: said for name, said in large.items() if name not in LARGE} == {}
    assert [name for name in LARGE if name not in large] == [], "small now: take them out of LARGE"


def size_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    """Lines, decorators aside, and parameters without ``self``."""
    given = function.args
    names = [p.arg for p in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [p.arg for p in (given.vararg, given.kwarg) if p is not None]
    parameters = len([name for name in names if name not in ("self", "cls")])
    return (function.end_lineno or function.lineno) - function.lineno + 1, parameters
