"""Run a model over samples and keep statistics of chosen tensors. The one file with onnxruntime.

The model runs one sample at a time (a model with a fixed batch: that batch), so what is computed
for a sample does not depend on its neighbours; ``batch_size`` samples are counted together. While
a thread counts the activations of one group, the model runs the next.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from artefacts.errors import ArtefactError, DataError, ModelError
from artefacts.graph_hash import graph_hash
from artefacts.libraries import require
from calibrators.collector import Activations, Checkpoint, Collector
from calibrators.exposed import write_exposed
from calibrators.rows import Arrays, Run, run_each
from calibrators.samples import Sample, input_specs
from calibrators.statistics import Statistics

__all__ = ["observe"]

logger = logging.getLogger(__name__)

# A group is handed over to the counting thread at the latest when it holds this much: at most two
# groups are in memory, one being counted and one being computed.
_GROUP_BYTES = 32 << 20


def observe(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Iterable[Sample],
    *,
    batch_size: int = 8,
    checkpoint: Checkpoint | Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Statistics:
    """Statistics of ``tensors`` over all samples, each distinct sample counted once.

    Args:
        model: the prepared model; it is not changed.
        tensors: names of activations or inputs of the graph.
        samples: may be iterated twice where a checkpoint is continued.
        batch_size: samples that are counted together; fewer where their activations are large.
            It changes the speed, never the result.
        checkpoint: a ``*.stats.npz`` to write now and then and to continue from.
        progress: called with samples done and their number, None where unknown.
        preprocess: the preprocessing spec as a dict, kept with the statistics.
        threads: of the runtime; None for one per core.

    Raises:
        ModelError: a tensor that the graph does not compute, or that does not hold floats.
        DataError: no samples, or a NaN or Inf, with tensor, node and sample.
        ArtefactError: the checkpoint is of another graph, preprocessing, placement or data.
        MissingLibraryError: onnxruntime is not installed.
    """
    nodes = _producers(model, tensors)
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint(path=checkpoint)
    collector = Collector(graph_hash(model), nodes, preprocess=preprocess, checkpoint=checkpoint)
    if collector.seen:
        _check_resumed(collector.seen, samples)
    with (
        _session(model, list(nodes), threads) as run,
        ThreadPoolExecutor(1, "statistics") as thread,
    ):
        counting: Future[None] | None = None
        fresh = _fresh(samples, collector.seen, progress)
        for group in _grouped(run_each(run, fresh, input_specs(model)), batch_size):
            if counting is not None:
                counting.result()
            counting = thread.submit(collector.add, group)
        if counting is not None:
            counting.result()
    if not collector.seen:
        raise DataError("0 samples were observed, expected at least 1; give calibration data")
    collector.save()
    return collector.statistics()


def _fresh(
    samples: Iterable[Sample],
    seen: frozenset[str],
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[Sample]:
    """The samples that were not counted before, each once."""
    known, duplicates = set(seen), 0
    total = _length(samples)
    for done, sample in enumerate(samples, start=1):
        if sample.digest not in known:
            known.add(sample.digest)
            yield sample
        elif sample.digest not in seen:
            duplicates += 1
        if progress is not None:
            progress(done, total)
    if duplicates:
        logger.warning("%d samples repeat others and were not counted again", duplicates)


def _grouped(
    stream: Iterator[tuple[Sample, Arrays]], batch_size: int
) -> Iterator[list[Activations]]:
    group: list[Activations] = []
    held_bytes = 0
    for sample, values in stream:
        group.append(Activations(name=sample.name, digest=sample.digest, values=values))
        held_bytes += sum(array.nbytes for array in values.values())
        if len(group) >= batch_size or held_bytes >= _GROUP_BYTES:
            yield group
            group, held_bytes = [], 0
    if group:
        yield group


def _check_resumed(seen: frozenset[str], samples: Iterable[Sample]) -> None:
    """Refuse a checkpoint that has counted samples which are not among these."""
    if iter(samples) is samples:
        raise TypeError("samples must be iterable twice to continue a checkpoint")
    foreign = seen - {sample.digest for sample in samples}
    if foreign:
        raise ArtefactError(
            f"checkpoint has counted {len(foreign)} samples that are not in this data (of "
            f"{len(seen)}), expected only samples of this run; delete it or choose another file"
        )


def _length(samples: Iterable[Sample]) -> int | None:
    try:
        return len(samples)  # type: ignore[arg-type]  # some sources know, some do not
    except TypeError:
        return None


def _producers(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, str]:
    """Tensor name → what computes it, for messages."""
    computed = {entry.name: "the graph's input" for entry in model.graph.input}
    for node in model.graph.node:
        computed.update(dict.fromkeys(node.output, f"{node.op_type} {node.name}".strip()))
    missing = [name for name in tensors if name not in computed]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(tensors)} tensors are not in the graph (the first is "
            f"{missing[0]}), expected activations of the prepared model; place its layers again"
        )
    return {name: computed[name] for name in sorted(set(tensors))}


@contextmanager
def _session(model: onnx.ModelProto, tensors: Sequence[str], threads: int | None) -> Iterator[Run]:
    """Something that runs the model and returns the tensors."""
    ort = require("onnxruntime", extra="cpu")
    fed = {entry.name for entry in model.graph.input}
    fetched = [name for name in tensors if name not in fed]
    given = [name for name in tensors if name in fed]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Idle workers of the runtime would otherwise spin on the cores that the counting needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory(prefix="observe-") as folder:
        path = write_exposed(model, fetched, Path(folder))
        errors = _runtime_errors()
        try:
            session = ort.InferenceSession(str(path), options, providers=_providers(ort))
        except errors as err:
            raise ModelError(
                f"onnxruntime cannot load the model ({_first_line(err)}), expected one that it "
                "runs; check the model with onnx.checker"
            ) from err

        def run(feeds: Arrays) -> Arrays:
            try:
                # An empty list of names means every output to onnxruntime.
                arrays = session.run(fetched, dict(feeds)) if fetched else []
            except errors as err:
                shapes = {name: list(array.shape) for name, array in feeds.items()}
                raise DataError(
                    f"onnxruntime cannot run the model on inputs of shapes {shapes} "
                    f"({_first_line(err)}), expected inputs that fit; check sample and model"
                ) from err
            values = dict(zip(fetched, arrays, strict=True))
            return {**values, **{name: feeds[name] for name in given}}

        yield run


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of its own, with no common base but Exception."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="cpu")
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
    return tuple(getattr(state, name) for name in (*names, "RuntimeException", "NoSuchFile"))


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n", 1)[0][:300]


def _providers(ort: Any) -> list[Any]:
    # TF32 keeps 10 bits of mantissa: not the FP32 model that is to be quantized.
    wanted = [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
    available = ort.get_available_providers()
    return [entry for entry in wanted if entry[0] in available]
