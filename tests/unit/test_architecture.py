"""The table of docs/architecture.md, read from every import of the project."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "command",
    "artefacts",
    "graphs",
    "calibrators",
    "quantization",
    "engines",
    "benchmarks",
)
MAY_IMPORT = {
    "command": ("artefacts", "graphs", "calibrators", "quantization", "engines", "benchmarks"),
    "artefacts": (),
    "graphs": ("artefacts",),
    "calibrators": ("artefacts",),
    "quantization": ("artefacts", "graphs", "calibrators.ranges", "calibrators.cache"),
    "engines": ("artefacts", "graphs"),
    "benchmarks": ("artefacts", "calibrators.data", "calibrators.preprocess"),
}
MAIN_MAY_IMPORT = {
    "benchmarks/__main__.py": ("engines", "quantization"),
    "quantization/__main__.py": ("calibrators",),
}
OPTIONAL = (
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "openvino",
    "onnxruntime",
    "torch",
    "torchao",
    "matplotlib",
    "ray",
    "onnxscript",
    "mlperf_loadgen",
    "pycocotools",
    "model_signing",
    "fastapi",
    "pynvml",
)


def modules() -> list[Path]:
    """Modules of the five packages; benchmarks/peers are scripts that compare whole products."""
    found = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    return sorted(p for p in found if "peers" not in p.parts)


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def imports(path: Path) -> set[str]:
    """Dotted names a module imports, at any depth; ``from a import b`` counts as ``a.b`` too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in PACKAGES:
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                names.add(node.module)
    return names


def allowed(name: str, grants: tuple[str, ...]) -> bool:
    return any(name == grant or name.startswith(f"{grant}.") for grant in grants)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    relative = str(path.relative_to(ROOT))
    grants = (package, *MAY_IMPORT[package], *MAIN_MAY_IMPORT.get(relative, ()))
    ours = {n for n in imports(path) if n.split(".")[0] in (*PACKAGES, "build_engine", "tests")}
    wrong = sorted(n for n in ours if not allowed(n, grants))
    assert not wrong, f"{relative} imports {wrong}; {package} may import {grants}"


def test_every_module_imports_without_the_optional_libraries() -> None:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in modules()]
    names = [n.removesuffix(".__init__") for n in names]
    program = (
        "import importlib, sys\n"
        f"for name in {OPTIONAL!r}: sys.modules[name] = None\n"
        f"for name in {[*names, 'build_engine']!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_each_room_says_what_comes_in_and_what_goes_out(package: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    assert "In: " in text
    assert "Out: " in text
    assert "May import: " in text


def test_no_module_is_longer_than_500_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): lines
        for p in sources()
        if p.suffix == ".py" and (lines := len(p.read_text().splitlines())) > 500
    }
    assert not long


def test_no_catch_all_names() -> None:
    wrong = [p for p in sources() if p.stem in {"utils", "util", "helpers", "common", "manager"}]
    assert not wrong


def test_public_names_exist() -> None:
    program = (
        "import importlib\n"
        f"for name in {PACKAGES!r}:\n"
        "    module = importlib.import_module(name)\n"
        "    for public in getattr(module, '__all__', ()): getattr(module, public)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
