"""The same observation on Ray: each worker counts a shard of the samples, and shards merge exactly.

The one file with ray. The samples are read here, once, and travel through Ray's object store, so
workers need neither the data nor a shared folder; they need this project installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx

from artefacts.errors import BuilderError, DataError
from artefacts.libraries import require
from calibrators.samples.samples import Sample
from calibrators.statistics.observe import observe
from calibrators.statistics.statistics import Statistics

__all__ = ["observe_on_ray"]

_TOGETHER = 8  # samples in one object of the store


def observe_on_ray(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    samples: Iterable[Sample],
    *,
    workers: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> Statistics:
    """What ``calibrators.observe`` returns, counted by several processes or machines.

    A Ray that runs already (``ray.init`` was called, or RAY_ADDRESS is set) is used; else one is
    started on this machine.

    Args:
        model: the prepared model.
        tensors: names of activations or inputs of the graph.
        samples: read once, in order.
        workers: shards to count at the same time, each on one core; None for one per core of Ray.
        progress: called with samples counted and their number, as shards are done.
        preprocess: the preprocessing spec as a dict, kept with the statistics.

    Raises:
        MissingLibraryError: ray is not installed.
        ModelError, DataError: as ``observe``.
    """
    ray = require("ray", extra="ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    groups = [(len(group), ray.put(group)) for group in _distinct(samples)]
    total = sum(size for size, _ in groups)
    if not total:
        raise DataError("0 samples were observed, expected at least 1; give calibration data")
    shards = [shard for start in range(count) if (shard := groups[start::count])]
    task = ray.remote(num_cpus=1, max_retries=2)(_observe_shard)
    shared = ray.put(model.SerializeToString())
    running = {
        task.remote(shared, list(tensors), [group for _, group in shard], preprocess): sum(
            size for size, _ in shard
        )
        for shard in shards
    }
    found: list[Statistics] = []
    done = 0
    waiting = list(running)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        result = ray.get(ready)
        if isinstance(result, BuilderError):
            raise result
        found.append(result)
        done += running[ready]
        if progress is not None:
            progress(done, total)
    return found[0].merge(*found[1:])


def _distinct(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Groups of samples, those that repeat others left out: no two shards may see the same."""
    known: set[str] = set()
    group: list[Sample] = []
    for sample in samples:
        if sample.digest in known:
            continue
        known.add(sample.digest)
        group.append(sample)
        if len(group) == _TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _observe_shard(
    serialized: bytes,
    tensors: Sequence[str],
    groups: Sequence[Any],
    preprocess: Mapping[str, Any] | None,
) -> Statistics | BuilderError:
    """In a worker. Errors that a user can mend come back as values: Ray would wrap them."""
    ray = require("ray", extra="ray")
    model = onnx.load_model_from_string(serialized)
    # One group in memory at a time.
    samples = (sample for group in groups for sample in ray.get(group))
    try:
        return observe(model, tensors, samples, preprocess=preprocess, threads=1)
    except BuilderError as err:
        return err
