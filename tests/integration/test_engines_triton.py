"""Exported engines in a real Triton server on the CPU, asked over HTTP and gRPC."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

import engines
from calibrators import Preprocess
from engines.__main__ import main
from engines.serving.triton import model_config
from tests.engine_models import convnet, save, scaled_sum
from tests.triton_server import PYTHON, Triton, find_triton, serve

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits"
TYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
ODD = 'in"put\\:0\n\u00e9'
PROFILE = engines.Profile(
    **{
        which: dict.fromkeys(TYPES, shape)
        for which, shape in (("min", (1, 2)), ("opt", (2, 3)), ("max", (5, 4)))
    }
)


class Served(NamedTuple):
    """Files and log that one session with the server left."""

    folder: Path
    engines: dict[str, Path]
    seen: dict[str, Any]
    log: str


@pytest.fixture(scope="module")
def triton() -> Triton:
    return find_triton()


@pytest.fixture(scope="module")
def served(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("triton")
    rng = np.random.default_rng()
    built = {
        "sum": (scaled_sum(), "fp32"),
        "static": (convnet(rng, batch=2, size=8), "int8"),
        "types": (many_types(), "fp32"),
        "broken": (scaled_sum(), "fp32"),
    }
    repository, paths = folder / "repository", {}
    for name, (model, precision) in built.items():
        paths[name] = folder / f"{name}.engine"
        options = engines.BuildOptions(
            target="cpu",
            precision=precision,
            threads=1,
            profiles=(PROFILE,) if name == "types" else (),
        )
        engines.build(save(model, folder, f"{name}.onnx"), paths[name], options)
        assert main(["triton-export", str(paths[name]), str(repository), "--instances", "1"]) == 0
    shutil.copytree(repository, folder / "exported")
    delay(repository)
    damage(repository / "broken" / "1" / "model.engine")
    exchange = folder / "exchange"
    exchange.mkdir()
    for name, arrays in requests(rng).items():
        np.savez(exchange / f"{name}.npz", **arrays)
        shutil.copy(folder / "exported" / name / "config.pbtxt", exchange / f"{name}.pbtxt")
    # The example's model, with the preprocessing that its client reads from the manifest.
    spec = Preprocess.from_yaml(DIGITS / "preprocess.yaml")
    passport = engines.Passport(preprocess=spec.to_dict())
    options = engines.BuildOptions(target="cpu", precision="fp32", threads=1)
    engines.build(DIGITS / "digits.onnx", folder / "digits.engine", options, passport)
    assert main(["triton-export", str(folder / "digits.engine"), str(repository)]) == 0
    for name, made in plan_manifests(paths["sum"]).items():
        (exchange / f"{name}.pbtxt").write_text(model_config(made, name))
    with serve(triton, repository, folder) as ports:
        client = [PYTHON, ROOT / "tests" / "triton_client.py", exchange, *map(str, ports)]
        subprocess.run(client, check=True, timeout=120)
        client = [PYTHON, ROOT / "examples" / "05_triton" / "client.py"]
        client += [repository / "digits" / "1" / "model.engine", DIGITS / "calib" / "000.png"]
        client += ["--http", f"127.0.0.1:{ports[0]}", "--grpc", f"127.0.0.1:{ports[1]}"]
        printed = subprocess.run(
            client, env=triton.environment, check=True, timeout=120, stdout=subprocess.PIPE
        )
    (folder / "printed").write_bytes(printed.stdout)
    seen = json.loads((exchange / "seen.json").read_text())
    return Served(exchange, paths, seen, (folder / "log").read_text())


def delay(repository: Path) -> None:
    """So long that requests of one burst meet, however slow the machine is.

    For one model more of them than its engine takes together.
    """
    for name in ("sum", "types"):
        config = repository / name / "config.pbtxt"
        waiting = "dynamic_batching { max_queue_delay_microseconds: 200000 }"
        text = config.read_text().replace("dynamic_batching { }", waiting)
        config.write_text(text.replace("max_batch_size: 5", "max_batch_size: 6"))


def damage(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


def requests(rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    return {
        "sum": {
            "left": rng.normal(size=(8, 4)).astype(np.float32),
            "right": rng.integers(-9, 9, (8, 4)),
        },
        "static": {"input": rng.normal(size=(2, 3, 8, 8)).astype(np.float32)},
        "types": {
            name: rng.integers(0, 2 if name == "bool" else 100, (3, 4)).astype(name)
            for name in TYPES
        },
    }


def plan_manifest(engine: Path) -> engines.Manifest:
    """What a TensorRT build of a dynamic batch leaves, with a name that has to be escaped."""
    made = json.loads(engines.read_manifest(engine).to_bytes())
    made = {key: made[key] for key in made if key not in ("manifest", "digest")}
    spec = engines.TensorSpec(name=ODD, dtype="float16", shape=(None, 3, None))
    shapes = [(1, 3, 8), (4, 3, 16), (32, 3, 16)]
    profiles = [
        engines.Profile(**dict(zip(("min", "opt", "max"), sizes, strict=True)))
        for sizes in ([{ODD: shape} for shape in shapes], [{ODD: shapes[0]}] * 3)
    ]
    return engines.Manifest(
        **made
        | {
            "target": "tensorrt",
            "inputs": (spec,),
            "outputs": (engines.TensorSpec(name="y", dtype="int32", shape=(None,)),),
            "profiles": tuple(profiles),
        }
    )


def plan_manifests(engine: Path) -> dict[str, engines.Manifest]:
    """The kinds of plan that are exported."""
    plan = plan_manifest(engine)
    fixed = engines.TensorSpec(name="x", dtype="float32", shape=(2, 3))
    batch = {ODD: (2, 3, 8)}
    one = engines.Profile(min=batch, opt=batch, max={ODD: (6, 3, 8)})
    return {
        "plan": plan,
        "plan_fixed": dataclasses.replace(plan, inputs=(fixed,), outputs=(fixed,), profiles=()),
        "plan_of_two": dataclasses.replace(plan, profiles=(one,)),
        "plan_dla": dataclasses.replace(plan, options={"dla_core": 1}),
    }


def many_types() -> onnx.ModelProto:
    """One input and output of each type, its second axis free; ``<type>_out`` is the same again."""
    one = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in TYPES}
    info = helper.make_tensor_value_info
    nodes = [
        node
        for name, kind in one.items()
        for node in (
            helper.make_node("Cast", [name], [f"{name}_f"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Cast", [f"{name}_f"], [f"{name}_out"], to=kind),
        )
    ]
    graph = helper.make_graph(
        nodes,
        "types",
        [info(name, kind, ["N", "W"]) for name, kind in one.items()],
        [info(f"{name}_out", kind, ["N", "W"]) for name, kind in one.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("model", ["sum", "static", "types"])
def test_answers_are_those_of_the_engine_in_process(
    served: Served, protocol: str, model: str
) -> None:
    with (
        np.load(served.folder / f"{model}.npz") as inputs,
        np.load(served.folder / f"{protocol}.{model}.npz") as answer,
        engines.load(served.engines[model]) as engine,
    ):
        expected = engine(dict(inputs))
        assert {name: (a.dtype, a.shape) for name, a in answer.items()} == {
            name: (a.dtype, a.shape) for name, a in expected.items()
        }
        for name, array in expected.items():
            np.testing.assert_array_equal(answer[name], array)


def test_the_examples_client_prints_what_its_readme_says(served: Served) -> None:
    readme = (ROOT / "examples" / "05_triton" / "README.md").read_text()
    expected = readme.split("```text\n")[1].split("```")[0]
    assert (served.folder.parent / "printed").read_text() == expected


def test_requests_that_come_together_run_together_and_get_their_own_answers(
    served: Served,
) -> None:
    with (
        np.load(served.folder / "sum.npz") as inputs,
        np.load(served.folder / "burst.sum.npz") as got,
    ):
        np.testing.assert_allclose(got["output"], 2 * inputs["left"] + inputs["right"], rtol=1e-6)
    assert served.seen["runs"] < served.seen["inferences"]


def test_more_together_than_the_engine_takes_are_answered_one_by_one(served: Served) -> None:
    with (
        np.load(served.folder / "types.npz") as inputs,
        np.load(served.folder / "burst.types.npz") as got,
    ):
        for name, array in inputs.items():
            np.testing.assert_array_equal(got[f"{name}_out"], np.concatenate([array, array]))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(("model", "expected"), [("sum", "[-1,4]"), ("static", "[2,3,8,8]")])
def test_a_wrong_shape_is_refused(served: Served, protocol: str, model: str, expected: str) -> None:
    assert expected in served.seen[f"{protocol} {model} refused"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_only_the_engine_can_refuse_gets_its_sentence(served: Served, protocol: str) -> None:
    """To Triton the second axis is free; the profile ends at 4."""
    said = served.seen[f"{protocol} types refused"]
    assert "bool (3, 8)" in said
    assert "expected bool (1, 2) to (5, 4)" in said
    assert served.seen["types.pbtxt"]["max_batch_size"] == 5


def test_a_damaged_engine_is_never_loaded(served: Served) -> None:
    assert served.seen["broken is ready"] is False
    assert "broken/1/model.engine has sha256" in served.log
    assert "damaged or altered" in served.log


def test_triton_reads_the_configuration_as_it_was_meant(served: Served) -> None:
    seen = served.seen
    assert seen["sum.pbtxt"]["max_batch_size"] == 8
    assert "dynamic_batching" in seen["sum.pbtxt"]
    assert [warm["batch_size"] for warm in seen["sum.pbtxt"]["model_warmup"]] == [1, 8]
    assert "dynamic_batching" not in seen["static.pbtxt"]
    assert seen["static.pbtxt"]["input"][0]["dims"] == ["2", "3", "8", "8"]
    plan = seen["plan.pbtxt"]
    assert (plan["platform"], plan["max_batch_size"]) == ("tensorrt_plan", 32)
    assert plan["input"] == [{"name": ODD, "data_type": "TYPE_FP16", "dims": ["3", "-1"]}]
    assert plan["output"] == [{"name": "y", "data_type": "TYPE_INT32"}]
    assert plan["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "profile": ["0", "1"]}]
    assert plan["model_warmup"][1]["inputs"][ODD]["dims"] == ["3", "16"]
    assert seen["config"]["sum"]["max_batch_size"] == 8
    warm = {
        name: [each["batch_size"] for each in seen[f"{name}.pbtxt"]["model_warmup"]]
        for name in ("static", "plan", "plan_fixed", "plan_of_two")
    }
    assert warm == {"static": [1], "plan": [1, 32], "plan_fixed": [1], "plan_of_two": [2, 6]}
    (group,) = seen["plan_dla.pbtxt"]["instance_group"]
    assert group["secondary_devices"] == [{"device_id": "1"}]  # KIND_NVDLA is its first kind
