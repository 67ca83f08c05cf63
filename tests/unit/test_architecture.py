"""The table of docs/architecture.md, read from every import of the project."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from engines import RUNTIMES, BuildOptions
from engines.options import Target

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "int8",
    "pipeline",
    "artefacts",
    "graphs",
    "calibrators",
    "quantization",
    "engines",
    "benchmarks",
)
_PIPELINE = ("artefacts", "graphs", "calibrators", "quantization", "engines", "benchmarks")
# Beside itself. A room inside a package may import what is listed here and nothing else of ours;
# the package's own files (its ``__init__`` and commands) may import all its rooms.
MAY_IMPORT = {
    "int8": ("artefacts", "engines", "benchmarks", "pipeline"),
    "pipeline": _PIPELINE,
    "pipeline.recalibration": ("pipeline", *_PIPELINE),
    "artefacts": (),
    "graphs": ("artefacts",),
    "calibrators": ("artefacts",),
    "calibrators.preprocessing": ("artefacts",),
    "calibrators.samples": ("artefacts", "calibrators.preprocessing"),
    "calibrators.statistics": ("artefacts", "graphs", "calibrators.samples"),
    "calibrators.ranges": ("artefacts", "calibrators.samples", "calibrators.statistics"),
    "calibrators.tensorrt": ("artefacts", "calibrators.ranges", "calibrators.samples"),
    "quantization": ("artefacts", "graphs", "calibrators.ranges", "calibrators.tensorrt.cache"),
    "quantization.prepare": ("artefacts", "graphs"),
    "quantization.lint": ("artefacts", "graphs"),
    "quantization.placement": ("artefacts", "graphs", "quantization.prepare.fold"),
    "quantization.write": (
        "artefacts",
        "graphs",
        "calibrators.ranges",
        "quantization.arithmetic",
        "quantization.placement",
    ),
    "quantization.measure": ("artefacts", "graphs", "quantization.prepare", "quantization.write"),
    "quantization.improve": (
        "artefacts",
        "graphs",
        "calibrators.ranges",
        "quantization.arithmetic",
        "quantization.measure",
        "quantization.placement",
        "quantization.write",
    ),
    "quantization.improve.walk": (
        "artefacts",
        "graphs",
        "quantization.arithmetic",
        "quantization.measure",
    ),
    "quantization.improve.weights": (
        "artefacts",
        "graphs",
        "quantization.arithmetic",
        "quantization.placement",
    ),
    "quantization.foreign": (
        "artefacts",
        "graphs",
        "calibrators.ranges",
        "quantization.improve",
        "quantization.lint",
        "quantization.measure",
        "quantization.prepare",
        "quantization.write",
    ),
    "quantization.search": (
        "artefacts",
        "graphs",
        "calibrators.ranges",
        "quantization.arithmetic",
        "quantization.commands",
        "quantization.improve",
        "quantization.measure",
        "quantization.placement",
        "quantization.write",
    ),
    "quantization.qat": (
        "artefacts",
        "graphs",
        "calibrators.ranges",
        "quantization.placement",
        "quantization.prepare",
        "quantization.write",
    ),
    "engines": ("artefacts", "graphs"),
    "engines.cuda": ("artefacts",),
    "engines.openvino": ("artefacts", "graphs", "engines"),
    "engines.openvino.rewrites": ("graphs.pairs",),
    "engines.tensorrt": ("artefacts", "graphs", "engines"),
    "engines.serving": ("artefacts", "engines"),
    "engines.monitoring": ("artefacts", "engines"),
    "benchmarks": ("artefacts", "graphs", "calibrators.samples", "calibrators.preprocessing"),
}
# Rooms that see the files of their package, but not the other runtimes.
NEVER = {
    "engines.openvino": ("engines.tensorrt", "engines.cuda", "engines.serving"),
    "engines.tensorrt": ("engines.openvino", "engines.serving"),
    "engines.serving": ("engines.openvino", "engines.tensorrt", "engines.cuda"),
    "engines.monitoring": ("engines.openvino", "engines.tensorrt", "engines.cuda"),
    "pipeline": ("pipeline.recalibration",),
}
MOST_FILES = 12
MORE_FILES = {
    "artefacts": "what every room needs, an idea each",
    "quantization/placement": "a file for each kind of rule",
    "quantization/prepare": "a file for each pass",
    "graphs": "the ground floor is one room",
    "engines": "what all runtimes share",
    "engines/openvino/rewrites": "a file for each fault of OpenVINO",
    "engines/tensorrt": "two libraries and four generations of them",
    "calibrators/preprocessing": "a file for each source of a spec",
    "calibrators/samples": "a file for each kind of source",
    "pipeline": "a file for each step",
    "benchmarks": "the command and what it measures",
    "benchmarks/report": "a file for each rendering",
    "benchmarks/peers": "scripts",
    "benchmarks/zoo": "scripts and tables of networks",
    "benchmarks/accuracy": "a file for each task",
}
MAIN_MAY_IMPORT = {
    "benchmarks/__main__.py": ("engines", "quantization"),
    "quantization/__main__.py": ("calibrators",),
    # Which tensors are observed is placement's to say.
    "calibrators/__main__.py": ("graphs", "quantization.commands"),
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
    """Modules of the packages; benchmarks/peers and zoo are scripts that try whole products."""
    found = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    scripts = {ROOT / "benchmarks/peers", ROOT / "benchmarks/zoo"}
    return sorted(p for p in found if not scripts & {*p.parents})


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


def room_of(path: Path) -> str:
    """The innermost room of the table that a module lies in."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next(name for name in names if name in MAY_IMPORT)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    relative = str(path.relative_to(ROOT))
    grants = (room, *MAY_IMPORT[room], *MAIN_MAY_IMPORT.get(relative, ()))
    ours = {n for n in imports(path) if n.split(".")[0] in (*PACKAGES, "build_engine", "tests")}
    forbidden = NEVER.get(room, ())
    wrong = sorted(n for n in ours if not allowed(n, grants) or allowed(n, forbidden))
    assert not wrong, f"{relative} imports {wrong}; {room} may import {grants}"


def test_folders_are_small_or_say_why() -> None:
    counts: dict[str, int] = {}
    for path in sources():
        ours = path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES
        if ours and path.name not in ("__init__.py", "__main__.py"):
            folder = str(path.relative_to(ROOT).parent)
            counts[folder] = counts.get(folder, 0) + 1
    large = {folder: n for folder, n in counts.items() if n > MOST_FILES}
    assert set(large) <= set(MORE_FILES), large


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


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_each_room_says_what_comes_in_and_what_goes_out(room: str) -> None:
    source = (ROOT / room.replace(".", "/") / "__init__.py").read_text()
    text = ast.get_docstring(ast.parse(source)) or ""
    assert "In: " in text
    assert "Out: " in text
    assert "May import: " in text


def test_targets_are_records_and_not_compared() -> None:
    """A new runtime is a folder with its record, and a line in the table of runtimes."""
    wrong = []
    for path in (p for p in modules() if p.relative_to(ROOT).parts[0] in ("engines", "pipeline")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [getattr(side, "value", None) for side in (node.left, *node.comparators)]
                if {*RUNTIMES} & {side for side in sides if isinstance(side, str)}:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


@pytest.mark.parametrize("target", RUNTIMES)
def test_every_option_of_a_runtime_is_one_of_the_builder(target: str) -> None:
    known = {field.name for field in dataclasses.fields(BuildOptions)}
    assert RUNTIMES[target].options <= known
    assert target in get_args(Target)


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


def test_the_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    answers = page.split("## Where is …?")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z_]+/[\w/]+(?:\.py|/))`", answers)
    assert len(named) >= 10
    assert not [name for name in named if not (ROOT / name).exists()]
