"""A service has numpy and its runtime, and nothing that builds: an engine loads and runs there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import engines
from build_engine import build
from engines.manifest import manifest_path

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
# Everything that the installation for building brings, and the rooms that need it.
BLOCKED = ("onnx", "onnxruntime", "onnxslim", "polygraphy", "PIL", "yaml", "jsonschema", "tqdm")
BLOCKED += ("flatbuffers", "google.protobuf", "ml_dtypes")
OURS = ("graphs", "calibrators", "quantization", "benchmarks", "pipeline")

PROGRAM = f"""
import sys
for name in {BLOCKED + OURS!r}:
    sys.modules[name] = None
import numpy as np
import engines
path, samples, answers = sys.argv[1:]
images = np.load(samples)
with engines.load(path) as engine:
    np.save(answers, engine({{"image": images}})["logits"])
with engines.EnginePool(path, 2) as pool:
    pool.warm_up()
    assert np.array_equal(pool({{"image": images}})["logits"], np.load(answers))
assert not [name for name in {BLOCKED + OURS!r} if sys.modules[name] is not None]
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "digits.int8.engine"
    build(
        DIGITS / "digits.onnx",
        path,
        target="cpu",
        calib_data=DIGITS / "calib",
        preprocess=DIGITS / "preprocess.yaml",
        calibrator="minmax",
    )
    return path


def alone(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_runs_with_numpy_and_its_runtime_alone(
    engine: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    images = rng.normal(size=(8, 1, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    done = alone(PROGRAM, engine, tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 0, done.stderr
    with engines.load(engine) as loaded:
        expected = loaded({"image": images})["logits"]
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data | {"precision": "fp32"}, "was altered"),
        (lambda data: {k: v for k, v in data.items() if k != "digest"}, "has no digest"),
    ],
    ids=["changed", "unsealed"],
)
def test_a_manifest_is_checked_there_too(
    engine: Path, tmp_path: Path, change: object, said: str
) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(engine.read_bytes())
    data = change(json.loads(manifest_path(engine).read_text()))  # type: ignore[operator]
    manifest_path(path).write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    program = PROGRAM.split("images =")[0] + "engines.load(path)\n"
    done = alone(program, path, "x", "y")
    assert done.returncode == 1
    assert "EngineError" in done.stderr
    assert said in done.stderr


def test_building_says_what_it_lacks_there() -> None:
    done = alone("import sys; sys.modules['onnx'] = None; import engines; engines.build")
    assert done.returncode == 1
    assert "onnx" in done.stderr


def test_its_distribution_has_what_it_imports_and_no_more(tmp_path: Path) -> None:
    for name in ("artefacts", "engines", "serving"):
        shutil.copytree(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", tmp_path / "dist", tmp_path / "serving"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(n).decode() for n in names if n.endswith("METADATA"))
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"artefacts", "engines"}
    assert "engines/manifest.schema.json" in names
    needs = re.findall(r"^Requires-Dist: (\w+)", metadata, re.MULTILINE)
    assert needs[0] == "numpy"
    assert not {"onnx", "onnxruntime", "polygraphy", "pillow"} & set(needs)


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'buidl'"):
        _ = engines.buidl  # type: ignore[attr-defined]
