"""Files of one build find each other; files of two are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from artefacts.errors import ArtefactError, InputError
from int8.main import main
from pipeline.family import family_of, is_artefact
from tests.integration.command import run
from tests.networks import Builder

pytest.importorskip("openvino", reason="needs pip install '.[cpu]'")


def built(folder: Path, seed: int, capsys: pytest.CaptureFixture[str], *flags: str) -> Path:
    rng = np.random.default_rng(seed)
    net = Builder(seed=seed)
    hidden = net.relu(net.conv(net.input("x", ("N", 16, 8, 8)), 32))
    folder.mkdir()
    onnx.save(net.build("net", net.conv(net.relu(net.conv(hidden, 32)), 16)), folder / "net.onnx")
    np.savez(folder / "rows.npz", x=rng.normal(size=(16, 16, 8, 8)).astype(np.float32))
    engine = folder / "net.int8.engine"
    code, _, err = run(
        *("--onnx", folder / "net.onnx", "--engine", engine, "--target", "cpu"),
        *("--calib-data", folder / "rows.npz", *flags),
        capsys=capsys,
    )
    assert code == 0, err
    return engine


@pytest.mark.parametrize(
    ("flags", "float_model"), [((), "improved"), (("--improve", "0"), "prepared")]
)
def test_any_file_of_a_build_finds_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], float_model: str
) -> None:
    engine = built(tmp_path / "one", 1, capsys, *flags)
    wanted = engine.with_name(f"net.{float_model}.onnx")
    names = ("int8.engine", "int8.engine.json", "int8.onnx", "prepared.onnx", "ranges.json")
    for name in names:
        path = engine.with_name(f"net.{name}")
        assert is_artefact(path)
        found = family_of(path)
        assert (found.float_model, found.profile) == (wanted, "cpu")
        assert found.ranges == engine.with_name("net.ranges.json")
    assert not is_artefact(engine.with_name("net.onnx"))
    data = str(engine.with_name("rows.npz"))
    for words in (["simulate", str(engine)], ["sensitivity", f"{engine}.json"]):
        assert main([*words, "--data", data, "--json", str(tmp_path / "found.json")]) == 0
        assert json.loads((tmp_path / "found.json").read_text())
    cache = tmp_path / "net.cache"
    words = ["calibrate", "cache", str(engine), "--version", "10.3.0", "-o", str(cache)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "which was improved" in told or ", the prepared one" in told
    assert cache.read_text().startswith("TRT-100300-")
    assert main(["calibrate", "cache", str(cache)]) == 0
    assert main(["lint", str(engine)]) == 0
    assert "net.int8.onnx" in capsys.readouterr().out


def test_files_of_two_builds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = built(tmp_path / "one", 1, capsys), built(tmp_path / "other", 2, capsys)
    ranges = one.with_name("net.ranges.json")
    data = str(one.with_name("rows.npz"))
    kept = ranges.read_bytes()
    shutil.copy(other.with_name("net.ranges.json"), ranges)
    with pytest.raises(ArtefactError, match=r"net\.ranges\.json are of graph .* two builds"):
        family_of(one)
    assert main(["sensitivity", str(one), "--data", data]) == 2
    capsys.readouterr()
    direct = ["sensitivity", str(one.with_name("net.improved.onnx"))]
    assert main([*direct, "--ranges", str(ranges), "--data", data]) == 2
    assert "error: ranges are of graph" in capsys.readouterr().err
    ranges.write_bytes(kept)
    for name in ("net.improved.onnx", "net.prepared.onnx"):
        shutil.copy(other.with_name(name), one.with_name(name))
    with pytest.raises(ArtefactError, match=r"made from graph .*net\.improved\.onnx is"):
        family_of(one)
    shutil.copy(other.with_name("net.int8.onnx"), one.with_name("net.int8.onnx"))
    with pytest.raises(ArtefactError, match=r"engine .* was built from a model with sha256"):
        family_of(one)
    one.with_name("net.int8.onnx").unlink()
    with pytest.raises(InputError, match=r"no net\.int8\.onnx beside"):
        family_of(one)
