"""The engine that is recalibrated, with what of its build lies beside it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx

import engines
import quantization
from artefacts.errors import ArtefactError, EngineError, InputError
from artefacts.files import sha256_file
from calibrators import Statistics
from engines.manifest import manifest_path, read_verified
from graphs.identity import graph_hash
from pipeline.family import family_of
from pipeline.paths import Paths
from pipeline.recalibration.asked import Asked

__all__ = ["Original", "original_of", "output_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Original:
    """An INT8 engine that ranges of ours were written into.

    Attributes:
        engine: its file.
        manifest: of it.
        prepared: the float graph.
        prepared_path: its file.
    """

    engine: Path
    manifest: engines.Manifest
    prepared: onnx.ModelProto
    prepared_path: Path

    @property
    def version(self) -> int:
        """1 for an engine that was only built."""
        return engines.versions_of(self.manifest)[-1].version

    def statistics(self) -> Statistics:
        """What it was calibrated with.

        Raises:
            InputError: the file is not there.
            ArtefactError: it is damaged, or of another build.
        """
        path = Paths(onnx=Path(), engine=self.engine).beside(".stats.npz")
        remedy = "or take the new data alone with --replace"
        if not path.is_file():
            raise InputError(
                f"no {path.name} beside {self.engine}, expected the statistics that it was "
                f"calibrated with, to add the new ones to; copy them there, {remedy}"
            )
        found, wanted = sha256_file(path), self.manifest.passport.statistics_sha256
        if found != wanted:
            raise ArtefactError(
                f"statistics {path} have sha256 {found[:12]}…, expected {str(wanted)[:12]}… as "
                f"the manifest of {self.engine} says: they are damaged or of another build; copy "
                f"them again, {remedy}"
            )
        return Statistics.load(path)

    def known_statistics(self) -> Statistics | None:
        """The same; None where they cannot be read."""
        try:
            return self.statistics()
        except InputError:
            return None

    def check_mergeable(self) -> None:
        """Refuse to add to data that were never any.

        Raises:
            InputError: it was calibrated with random samples.
        """
        count = (self.manifest.passport.settings or {}).get("random_calibration")
        if count is not None:
            raise InputError(
                f"engine {self.engine} was calibrated with {count} random samples, expected real "
                "ones to add the new data to; take the new data alone with --replace"
            )


def original_of(path: Path) -> Original:
    """The engine and its files, held together by their hashes.

    Raises:
        InputError: a file is missing.
        EngineError: the engine is damaged, or none with ranges of ours.
        ArtefactError: the files are of two builds.
    """
    manifest, _ = read_verified(path)
    if manifest.precision != "int8":
        raise EngineError(
            f"engine {path} is {manifest.precision}, expected int8: only INT8 has ranges; give the "
            "INT8 engine of this model, or build one"
        )
    if manifest.options.get("quantization") == "implicit":
        raise EngineError(
            f"engine {path} was quantized by TensorRT's own calibrator, expected ranges that were "
            "written into the graph; build it again without --implicit and --calib"
        )
    family_of(path)
    prepared_path = Paths(onnx=Path(), engine=path).beside(".prepared.onnx")
    if not prepared_path.is_file():
        raise InputError(
            f"no {prepared_path.name} beside {path}, expected the float graph that the build wrote "
            "with it; copy the whole folder, or build again"
        )
    prepared = quantization.load_model(prepared_path)
    found, wanted = graph_hash(prepared), manifest.passport.graph_hash
    if found != wanted:
        raise ArtefactError(
            f"model {prepared_path} is graph {found[:12]}, expected {str(wanted)[:12]} of engine "
            f"{path}: files of two builds; build again"
        )
    return Original(engine=path, manifest=manifest, prepared=prepared, prepared_path=prepared_path)


def output_of(asked: Asked, original: Original) -> Path:
    """The new engine: ``m.int8.engine`` → ``m.v2.engine``, unless another name is given.

    Raises:
        InputError: it is there already, or its files would take the place of the old ones.
    """
    before = Paths(onnx=Path(), engine=original.engine)
    if asked.output is None:
        stem = re.sub(r"\.v\d+$", "", before.beside("").name)
        version = original.version + 1
        output = original.engine.with_name(f"{stem}.v{version}{original.engine.suffix}")
    else:
        output = asked.output
    after = Paths(onnx=Path(), engine=output)
    same_files = after.beside("").resolve() == before.beside("").resolve()
    if same_files or output.resolve() == original.engine.resolve():
        raise InputError(
            f"--output {output} has the files of {original.engine} beside it, expected a name of "
            "its own, since the old engine and its files stay; give another name"
        )
    if not asked.force:
        _refuse_present([output, manifest_path(output), after.beside(".decision.md")])
    return output


def _refuse_present(paths: Collection[Path]) -> None:
    for path in paths:
        if path.exists():
            raise InputError(
                f"{path} is there already, perhaps in service, expected a new name; give another "
                "--output, or --force to replace it"
            )
