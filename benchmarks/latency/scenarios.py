"""MLPerf's load scenarios, driven by its own LoadGen (package mlcommons-loadgen).

    SingleStream  one query at a time, the next one when it is answered     p90 counts
    MultiStream   queries of several images, one at a time                  p99 counts
    Offline       all images at once                                        throughput counts
    Server        queries arrive at random (Poisson) at a given rate        p99 within a bound

LoadGen schedules, times and judges; the callable is all it knows of a system. A run here is far
shorter than MLPerf's 600 s and no MLPerf result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from artefacts.errors import RequestError
from artefacts.libraries import require
from artefacts.litter import scratch_folder
from benchmarks.latency.loadgen_log import figures_of, parse_detail_log, reasons_of

__all__ = [
    "Scenario",
    "ScenarioResult",
    "ScenarioRules",
    "find_server_rate",
    "run_scenario",
]

Scenario = Literal["SingleStream", "MultiStream", "Offline", "Server"]
Query = Callable[[Sequence[int]], object]


@dataclass(frozen=True, kw_only=True)
class ScenarioRules:
    """How long and how hard.

    Attributes:
        seconds: least duration (MLPerf: 600).
        min_queries: fewest queries.
        images_per_query: of MultiStream (MLPerf: 8).
        rate_per_s: queries a second, of Server; what Offline expects.
        bound_ms: latency that 99 % of Server's queries must keep.
        seed: of arrival times and sample order.
    """

    seconds: float = 5.0
    min_queries: int = 100
    images_per_query: int = 8
    rate_per_s: float = 100.0
    bound_ms: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = (self.seconds, self.min_queries, self.images_per_query)
        if not min(*numbers, self.rate_per_s, self.bound_ms) > 0:
            raise RequestError(
                f"scenario rules {self} have a number of 0 or less, expected all above 0; "
                "correct it"
            )


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """LoadGen's verdict on one system in one scenario.

    Attributes:
        system: its name.
        scenario: which.
        figures: ``p50_ms p90_ms p95_ms p99_ms mean_ms max_ms`` per query, ``throughput_per_s`` in
            images.
        valid: whether LoadGen calls the run valid under these rules.
        reasons: what it says if not.
        queries: how many were answered.
        images_per_query: of each.
        workers: threads that answered.
        rate_per_s: of Server's arrivals; None for the others.
        bound_ms: of Server's latency; None for the others.
    """

    system: str
    scenario: Scenario
    figures: dict[str, float]
    valid: bool
    reasons: tuple[str, ...]
    queries: int
    images_per_query: int
    workers: int
    rate_per_s: float | None = None
    bound_ms: float | None = None


def run_scenario(
    scenario: Scenario,
    workers: Sequence[Query],
    *,
    system: str,
    images: int,
    rules: ScenarioRules,
    log_folder: Path | None = None,
) -> ScenarioResult:
    """Drive one system through one scenario.

    Args:
        scenario: which.
        workers: callables that answer a query, given the indices of its images; each is called
            from one thread at a time. One per thread.
        system: its name, for the result.
        images: how many distinct images there are; indices are below it.
        rules: how long and how hard.
        log_folder: where LoadGen's own logs stay; None to drop them.

    Raises:
        MissingLibraryError: LoadGen is not installed.
        RequestError: no such scenario, or a query failed.
    """
    if scenario not in get_args(Scenario):
        raise RequestError(
            f"scenario {scenario!r}, expected one of {', '.join(get_args(Scenario))}; correct it"
        )
    loadgen = require("mlperf_loadgen", extra="bench")
    with ExitStack() as stack:
        folder = log_folder or stack.enter_context(scratch_folder("loadgen"))
        folder.mkdir(parents=True, exist_ok=True)
        _start(loadgen, scenario, workers, images, rules, folder)
        values = parse_detail_log(folder / "mlperf_log_detail.txt")
    per_query = int(values["generated_samples_per_query"])
    return ScenarioResult(
        system=system,
        scenario=scenario,
        figures=figures_of(values, scenario, per_query),
        valid=values.get("result_validity") == "VALID",
        reasons=reasons_of(values),
        queries=int(values.get("result_query_count", 0)),
        images_per_query=per_query,
        workers=len(workers),
        rate_per_s=rules.rate_per_s if scenario == "Server" else None,
        bound_ms=rules.bound_ms if scenario == "Server" else None,
    )


def _start(
    loadgen: Any,
    scenario: Scenario,
    workers: Sequence[Query],
    images: int,
    rules: ScenarioRules,
    folder: Path,
) -> None:
    """One LoadGen test; an error of a query is raised after it."""
    pool = _Pool(loadgen, workers)
    # A lone worker without random arrivals answers in LoadGen's thread: a thread less to wake.
    inline = len(workers) == 1 and scenario != "Server"
    under_test = loadgen.ConstructSUT(pool.answer if inline else pool.submit, lambda: None)
    library = loadgen.ConstructQSL(images, images, lambda indices: None, lambda indices: None)
    try:
        loadgen.StartTestWithLogSettings(
            under_test,
            library,
            _settings(loadgen, scenario, rules),
            _log_settings(loadgen, folder),
        )
    finally:
        pool.close()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(under_test)
    pool.raise_first_error()


class _Pool:
    """Answers LoadGen's queries, in its thread or in one per worker."""

    def __init__(self, loadgen: Any, workers: Sequence[Query]) -> None:
        self._loadgen = loadgen
        self._idle = list(workers)
        self._size = len(workers)
        self._threads = ThreadPoolExecutor(self._size, thread_name_prefix="scenario")
        self._error: BaseException | None = None

    def submit(self, samples: Sequence[Any]) -> None:
        """Answer in the next free thread; a large query is shared between all."""
        count = min(len(samples), self._size)
        for start in range(count):
            self._threads.submit(self.answer, list(samples[start::count]))

    def answer(self, samples: Sequence[Any]) -> None:
        """Answer now, and tell LoadGen even if the query fails: it would wait forever."""
        with self:
            worker = self._idle.pop()  # as many workers as threads: one is always idle here
            try:
                worker([sample.index for sample in samples])
            finally:
                self._idle.append(worker)
        response = self._loadgen.QuerySampleResponse
        self._loadgen.QuerySamplesComplete([response(sample.id, 0, 0) for sample in samples])

    def __enter__(self) -> None:
        """Keep errors: one that reaches LoadGen's C++ code ends the process."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._error = self._error or error
        return True

    def close(self) -> None:
        """Wait for the threads."""
        self._threads.shutdown()

    def raise_first_error(self) -> None:
        """The first error of a query, if there was one."""
        if self._error is not None:
            raise self._error


def _settings(loadgen: Any, scenario: Scenario, rules: ScenarioRules) -> Any:
    """LoadGen's settings object."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(rules.seconds * 1000)
    settings.min_query_count = 1 if scenario == "Offline" else rules.min_queries
    settings.multi_stream_samples_per_query = rules.images_per_query
    settings.offline_expected_qps = rules.rate_per_s
    settings.server_target_qps = rules.rate_per_s
    settings.server_target_latency_ns = round(rules.bound_ms * 1e6)
    settings.server_target_latency_percentile = 0.99
    for name in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed"):
        setattr(settings, name, rules.seed)
    return settings


def _log_settings(loadgen: Any, folder: Path) -> Any:
    """Logs into ``folder``, nothing to the terminal."""
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    settings = loadgen.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings


def find_server_rate(
    run: Callable[[float], ScenarioResult], *, highest_per_s: float, steps: int = 5
) -> ScenarioResult:
    """The highest arrival rate found whose p99 keeps the bound, by bisection.

    Args:
        run: runs the Server scenario at a rate.
        highest_per_s: a rate that is surely too high, e.g. the system's throughput.
        steps: runs; the answer is within ``highest_per_s / 2^steps``.

    Returns:
        The run at the best rate; the last, failed one if none kept the bound.
    """
    low, high = 0.0, highest_per_s
    best = last = None
    for _ in range(steps):
        rate = (low + high) / 2
        last = run(rate)
        kept = last.bound_ms is not None and last.figures["p99_ms"] <= last.bound_ms
        if kept:
            best, low = last, rate
        else:
            high = rate
    found = best or last
    if found is None:
        raise RequestError(f"search of a rate in {steps} steps, expected at least 1; raise it")
    return found
