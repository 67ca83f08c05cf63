"""Model repositories that Triton would refuse, or that would hurt, are never written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from artefacts.errors import EngineError, InputError, UnsupportedError
from engines import Manifest, Passport, Profile, TensorSpec
from engines.__main__ import main
from engines.manifest import manifest_path
from engines.monitoring.settings import Monitored
from engines.serving.triton import export_triton, model_config

DATA = b"what TensorRT wrote"


def manifest(target: str = "tensorrt", **changes: Any) -> Manifest:
    digest = hashlib.sha256(DATA).hexdigest()
    fields: dict[str, Any] = {
        "engine_sha256": digest,
        "engine_bytes": len(DATA),
        "target": target,
        "precision": "int8",
        "onnx": {"name": "model.onnx", "sha256": digest, "external": {}},
        "library": {"name": "openvino" if target == "cpu" else "tensorrt", "version": "1"},
        "device": {"name": "any"},
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(None, 3)),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=(None, 1)),),
        "profiles": (Profile(min={"x": (1, 3)}, opt={"x": (2, 3)}, max={"x": (4, 3)}),),
        "options": {},
        "build": {},
        "coverage": None,
        "passport": Passport(),
    }
    return Manifest(**(fields | changes))


def written(folder: Path, made: Manifest, name: str = "model.engine") -> Path:
    path = folder / name
    path.write_bytes(DATA)
    manifest_path(path).write_bytes(made.to_bytes())
    return path


def test_a_plan_stays_plain_and_keeps_its_manifest(tmp_path: Path) -> None:
    version = export_triton(written(tmp_path, manifest()), tmp_path / "repo")
    assert version == tmp_path / "repo" / "model" / "1"
    assert sorted(path.name for path in version.iterdir()) == ["model.plan", "model.plan.json"]
    assert (version / "model.plan").read_bytes() == DATA
    config = (version.parent / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"\nmax_batch_size: 4\n' in config
    assert "count: 1, kind: KIND_GPU" in config


def test_an_engine_of_the_cpu_target_comes_with_its_code(tmp_path: Path) -> None:
    engine = written(tmp_path, manifest("cpu"))
    version = export_triton(engine, tmp_path / "repo", instances=3)
    names = sorted(path.name for path in version.iterdir())
    assert names == ["model.engine", "model.engine.json", "model.py"]
    config = (version.parent / "config.pbtxt").read_text()
    assert 'backend: "python"' in config
    assert "count: 3, kind: KIND_CPU" in config


def test_another_export_is_the_next_version(tmp_path: Path) -> None:
    engine = written(tmp_path, manifest())
    (tmp_path / "repo" / "m" / "9").mkdir(parents=True)
    versions = [export_triton(engine, tmp_path / "repo", name="m").name for _ in range(2)]
    assert versions == ["10", "11"]
    assert sorted(p.name for p in (tmp_path / "repo" / "m").iterdir()) == [
        *("10", "11", "9", "config.pbtxt")
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp/x", "-x", ".hidden", "a b", "x" * 200])
def test_names_that_leave_the_repository_are_refused(tmp_path: Path, name: str) -> None:
    engine = written(tmp_path, manifest())
    with pytest.raises(InputError, match="model name") as caught:
        export_triton(engine, tmp_path / "repo", name=name)
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "repo").exists()


def test_an_altered_engine_is_not_exported(tmp_path: Path) -> None:
    engine = written(tmp_path, manifest())
    engine.write_bytes(DATA[::-1])
    with pytest.raises(EngineError, match="damaged or altered"):
        export_triton(engine, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(("wanted", "expected"), [(None, 4), (1, 1), (4, 4)])
def test_the_batch_is_what_the_profile_allows(wanted: int | None, expected: int) -> None:
    assert f"max_batch_size: {expected}\n" in model_config(manifest(), "m", max_batch=wanted)


@pytest.mark.parametrize("wanted", [0, -1, 5])
def test_no_batch_beyond_the_profile(wanted: int) -> None:
    with pytest.raises(InputError, match=f"--max-batch is {wanted}, expected 1 to 4"):
        model_config(manifest(), "m", max_batch=wanted)


def test_a_fixed_batch_cannot_be_batched_by_triton() -> None:
    fixed = TensorSpec(name="x", dtype="float32", shape=(2, 3))
    made = manifest(inputs=(fixed,), profiles=())
    assert "max_batch_size: 0\n" in model_config(made, "m")
    with pytest.raises(InputError, match=r"--max-batch is 2 .* no dynamic first axis"):
        model_config(made, "m", max_batch=2)


def test_no_warm_up_with_sizes_that_nobody_named() -> None:
    image = TensorSpec(name="x", dtype="uint8", shape=(None, 3, None, None))
    assert "model_warmup" not in model_config(manifest("cpu", inputs=(image,), profiles=()), "m")
    assert "model_warmup" in model_config(manifest("cpu", profiles=()), "m")


def warm_up(made: Manifest, **options: Any) -> list[int]:
    text = model_config(made, "m", **options)
    return [int(line.split()[1]) for line in text.splitlines() if "  batch_size:" in line]


def test_warm_up_stays_within_the_profile() -> None:
    shapes = {"min": {"x": (2, 3)}, "opt": {"x": (4, 3)}, "max": {"x": (8, 3)}}
    large = {"min": {"x": (9, 3)}, "opt": {"x": (16, 3)}, "max": {"x": (64, 3)}}
    made = manifest(profiles=(Profile(**shapes), Profile(**large)))
    assert warm_up(made) == [2, 8]
    assert warm_up(made, max_batch=5) == [2, 5]
    assert warm_up(made, max_batch=1) == []
    fixed = TensorSpec(name="x", dtype="float32", shape=(2, 3))
    assert warm_up(manifest(inputs=(fixed,), profiles=())) == [1]  # Triton skips one of 0


def test_a_plan_for_a_dla_says_which(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = manifest(options={"dla_core": 1, "version_compatible": True})
    device = "secondary_devices [ { kind: KIND_NVDLA, device_id: 1 } ]"
    assert device in model_config(made, "m")
    assert "secondary_devices" not in model_config(manifest(), "m")
    assert main(["triton-export", str(written(tmp_path, made)), str(tmp_path / "repo")]) == 0
    assert "--backend-config=tensorrt,version-compatible=true\n" in capsys.readouterr().out


def test_what_triton_has_no_backend_or_type_for() -> None:
    with pytest.raises(UnsupportedError, match="tensorrt-rtx"):
        model_config(manifest("tensorrt-rtx"), "m")
    odd = TensorSpec(name="x", dtype="float8_e4m3fn", shape=(None, 3))
    with pytest.raises(UnsupportedError, match="'x' has dtype float8_e4m3fn"):
        model_config(manifest(inputs=(odd,)), "m")
    with pytest.raises(InputError, match="--instances is 0"):
        model_config(manifest(), "m", instances=0)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = written(tmp_path, manifest())
    assert main(["triton-export", str(engine), str(tmp_path / "repo"), "--max-batch", "2"]) == 0
    assert str(tmp_path / "repo" / "model" / "1") in capsys.readouterr().out
    assert main(["triton-export", str(engine), str(tmp_path / "repo"), "--max-batch", "9"]) == 2
    assert capsys.readouterr().err.startswith("error: --max-batch is 9, expected 1 to 4")


def test_what_is_monitored_lies_in_the_configuration(tmp_path: Path) -> None:
    engine = written(tmp_path, manifest("cpu"))
    words = ["triton-export", str(engine), str(tmp_path / "repo"), "--record", str(tmp_path / "s")]
    assert main([*words, "--record-share", "0.5", "--record-limit", "7"]) == 0
    config = (tmp_path / "repo" / "model" / "config.pbtxt").read_text()
    for key, text in (
        ("record", tmp_path / "s"),
        ("record_share", 0.5),
        ("record_limit", 7),
        ("record_inputs", "true"),
    ):
        assert f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}' in config
    assert "drift" not in config


@pytest.mark.parametrize(
    ("target", "monitored", "error", "said"),
    [
        ("tensorrt", Monitored(drift=True), UnsupportedError, "leave --record and --drift out"),
        ("tensorrt", Monitored(record="s"), UnsupportedError, "target tensorrt"),
        ("cpu", Monitored(drift=True), EngineError, "no summary of its inputs"),
        ("cpu", Monitored(record="s", share=2.0), InputError, "share 2.0"),
        ("cpu", Monitored(record="s", limit=0), InputError, "limit 0"),
    ],
)
def test_what_the_server_could_not_monitor_is_refused(
    tmp_path: Path, target: str, monitored: Monitored, error: type[Exception], said: str
) -> None:
    engine = written(tmp_path, manifest(target))
    with pytest.raises(error, match=said):
        export_triton(engine, tmp_path / "repo", monitored=monitored)
    assert not (tmp_path / "repo").exists()


def test_parameters_say_what_was_set() -> None:
    for monitored in (
        Monitored(),
        Monitored(drift=True),
        Monitored(drift=True, record="/s", share=0.25, limit=9, inputs=False),
    ):
        assert Monitored.from_parameters(monitored.to_parameters()) == monitored
    for key, text in (("drift", "yes"), ("record_share", "half"), ("record_limit", "1.5")):
        with pytest.raises(InputError, match=f"{text}.*expected drift and record_inputs"):
            Monitored.from_parameters({key: text})
