"""Run a model over samples and keep statistics of chosen tensors. The one file with onnxruntime.

The model runs one sample at a time (a model with a fixed batch: that batch), so what is computed
for a sample does not depend on its neighbours. Several samples are run at the same time, each on
its own share of the cores: that leaves no core waiting while activations are counted.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import onnx

from artefacts.errors import ArtefactError, DataError, ModelError
from artefacts.libraries import require
from artefacts.litter import scratch_folder
from artefacts.machine import usable_cores
from artefacts.onnxruntime_errors import onnxruntime_errors, refusal
from artefacts.onnxruntime_session import open_session
from artefacts.runs import stoppable
from calibrators.samples.axes import input_specs
from calibrators.samples.rows import Arrays, feeds_of, find_layout
from calibrators.samples.samples import Sample
from calibrators.statistics.blocked import as_held
from calibrators.statistics.collector import Checkpoint, Collector
from calibrators.statistics.exposed import write_exposed
from calibrators.statistics.pipeline import Pipeline
from calibrators.statistics.statistics import Statistics
from graphs.identity import graph_hash
from graphs.operators import CONVOLUTION_OPS
from graphs.tensor_data import weight_bytes
from graphs.walk import nodes

__all__ = ["observe"]

logger = logging.getLogger(__name__)

_MOST_WORKERS = 4  # runs at the same time; each holds the activations of a sample
_LARGEST_WRITTEN_BYTES = 1 << 30  # of weights that are written once more, as the runtime has them


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
        threads: cores to use; None for all.

    Raises:
        ModelError: a tensor that the graph does not compute, or that does not hold floats.
        DataError: no samples, or a NaN or Inf, with tensor, node and sample.
        ArtefactError: the checkpoint is of another graph, preprocessing, placement or data.
        MissingLibraryError: onnxruntime is not installed.
    """
    nodes = _producers(model, tensors)
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint(path=checkpoint)
    cores = threads or usable_cores()
    workers = min(cores, _MOST_WORKERS)
    with ThreadPoolExecutor(1, "hash") as beside:  # hashing and loading do not wait for each other
        hashed = beside.submit(graph_hash, model)
        with _session(model, list(nodes), max(1, cores // workers)) as session:
            collector = Collector(
                hashed.result(), nodes, preprocess=preprocess, checkpoint=checkpoint
            )
            if collector.seen:
                _check_resumed(collector.seen, samples)
            fresh = _fresh(samples, collector.seen)
            specs = input_specs(model)
            for first in itertools.islice(fresh, 1):
                pipeline = Pipeline(
                    run=session.run,
                    run_in_place=session.run_in_place,
                    layout=find_layout(session.run, first, specs),
                    collector=collector,
                    workers=workers,
                    group=batch_size,
                )
                feeds = feeds_of(itertools.chain([first], fresh), specs)
                pipeline.process(feeds, _reporter(progress, samples, len(collector.seen)))
    if not collector.seen:
        raise DataError("0 samples were observed, expected at least 1; give calibration data")
    collector.save()
    return collector.statistics()


def _fresh(samples: Iterable[Sample], seen: frozenset[str]) -> Iterator[Sample]:
    """The samples that were not counted before, each once."""
    known, duplicates = set(seen), 0
    for sample in samples:
        if sample.digest not in known:
            known.add(sample.digest)
            yield sample
        elif sample.digest not in seen:
            duplicates += 1
    if duplicates:
        logger.warning("%d samples repeat others and were not counted again", duplicates)


def _reporter(
    progress: Callable[[int, int | None], None] | None, samples: Iterable[Sample], already: int
) -> Callable[[int], None]:
    """Turn numbers of samples that were counted into progress."""
    done, total = already, _length(samples)

    def report(counted: int) -> None:
        nonlocal done
        done += counted
        if progress is not None:
            progress(done, total)

    return report


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
    for node in nodes(model):
        computed.update(dict.fromkeys(node.output, f"{node.op_type} {node.name}".strip()))
    missing = [name for name in tensors if name not in computed]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(tensors)} tensors are not in the graph (the first is "
            f"{missing[0]}), expected activations of the prepared model; place its layers again"
        )
    return {name: computed[name] for name in sorted(set(tensors))}


class _Session:
    """The model in onnxruntime, returning the tensors to observe."""

    def __init__(self, session: Any, fetched: Sequence[str], given: Sequence[str]) -> None:
        self._session = session
        self._fetched = list(fetched)
        self._given = list(given)
        self._errors = onnxruntime_errors()
        self._local = threading.local()

    def run(self, feeds: Arrays) -> Arrays:
        """Run the model; what it returns is the caller's."""
        try:
            # An empty list of names means every output to onnxruntime.
            with stoppable() as stop:
                names = self._fetched
                arrays = self._session.run(names, dict(feeds), stop) if names else []
        except self._errors as err:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise DataError(
                f"onnxruntime cannot run the model on inputs of shapes {shapes} "
                f"({_first_line(err)}), expected inputs that fit; check sample and model"
            ) from err
        return self._with_given(dict(zip(self._fetched, arrays, strict=True)), feeds)

    def run_in_place(self, feeds: Arrays) -> Arrays:
        """Run the model; this thread's next run overwrites what it returns.

        Large activations cost as much in fresh memory and copies as a tenth of the model.
        """
        shapes = {name: array.shape for name, array in feeds.items()}
        bound = getattr(self._local, "bound", None)
        if bound is not None and bound[0] == shapes:
            _, binding, arrays = bound
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            try:
                with stoppable() as stop:
                    self._session.run_with_iobinding(binding, stop)
                return self._with_given(arrays, feeds)
            except self._errors:  # shapes that depend on the data
                self._local.bound = None
        values = self.run(feeds)
        if self._fetched:
            arrays = {name: values[name] for name in self._fetched}
            self._local.bound = (shapes, self._bind(arrays), arrays)
        return values

    def _bind(self, arrays: Arrays) -> Any:
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def _with_given(self, arrays: Arrays, feeds: Arrays) -> Arrays:
        return {**arrays, **{name: feeds[name] for name in self._given}}


@contextmanager
def _session(model: onnx.ModelProto, tensors: Sequence[str], threads: int) -> Iterator[_Session]:
    ort = require("onnxruntime", extra="cpu")
    fed = {entry.name for entry in model.graph.input}
    fetched = [name for name in tensors if name not in fed]
    with scratch_folder("observe") as folder:
        path = write_exposed(model, fetched, folder)
        session = None
        with suppress(*onnxruntime_errors()):  # what the model itself is refused for, it is below
            session = _without_reordering(ort, model, path, threads)
        try:
            session = session or open_session(str(path), _options(ort, threads), _providers(ort))
        except onnxruntime_errors() as err:
            raise ModelError(refusal(f"graph {model.graph.name!r}", "load", err)) from err
        yield _Session(session, fetched, [name for name in tensors if name in fed])


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Idle workers of the runtime would otherwise spin on the cores that the counting needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _without_reordering(ort: Any, model: onnx.ModelProto, path: Path, threads: int) -> Any:
    """The same nodes on the same values, which are given out as they lie; None where that is all.

    The runtime's own optimizations are written to a file, changed there, and run as they are.
    """
    convolutions = any(node.op_type in CONVOLUTION_OPS for node in nodes(model))
    large = weight_bytes(model) > _LARGEST_WRITTEN_BYTES
    if not convolutions or large or len(_providers(ort)) > 1:
        return None
    optimized = path.with_name("optimized.onnx")
    options = _options(ort, threads)
    options.log_severity_level = 4  # it warns that the file is for this kind of processor
    options.optimized_model_filepath = str(optimized)
    for key, value in (
        ("session.optimized_model_external_initializers_file_name", "optimized.weights"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("session.disable_prepacking", "1"),  # only the file is wanted
    ):
        options.add_session_config_entry(key, value)
    open_session(str(path), options, _providers(ort))
    changed = onnx.load(optimized, load_external_data=False)
    if not as_held(changed):
        return None
    optimized.write_bytes(changed.SerializeToString())
    options = _options(ort, threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(str(optimized), options, _providers(ort))


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n", 1)[0][:300]


def _providers(ort: Any) -> list[Any]:
    # TF32 keeps 10 bits of mantissa: not the FP32 model that is to be quantized.
    wanted = [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]
    available = ort.get_available_providers()
    return [entry for entry in wanted if entry[0] in available]
