"""What watching for drift adds to a request, for inputs of usual sizes.

    python benchmarks/peers/watch_overhead.py [--calls 20000]

The arrays take turns, so that none lies in the caches from the call before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from engines.monitoring.drift import Watch
from engines.monitoring.summary import Summariser
from engines.passport import Passport

SHAPES = ((1, 3, 224, 224), (8, 3, 224, 224), (1, 3, 640, 640), (1, 64))
ARRAYS = 20
AT_ONCE = 10  # calls between two looks at the clock


def measure(shape: tuple[int, ...], calls: int) -> dict[str, float]:
    """Microseconds of a call: the best tens, the median and the 90th percentile of tens."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for _ in range(ARRAYS)]
    summariser = Summariser("x")
    for array in arrays:
        summariser.add(array[:1])
    summary = summariser.summary()
    assert summary is not None
    watch = Watch(Passport(inputs=(summary,), sample_axes={"axes": {"x": 0}}))
    times: list[float] = []
    for turn in range(calls // AT_ONCE):
        start = time.perf_counter_ns()
        for call in range(AT_ONCE):
            watch.observe({"x": arrays[(turn * AT_ONCE + call) % ARRAYS]})
        times.append((time.perf_counter_ns() - start) / 1000 / AT_ONCE)
    return {f"p{q}": round(float(np.percentile(times, q)), 1) for q in (0, 50, 90)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    calls = parser.parse_args().calls
    found = {str(list(shape)): measure(shape, calls) for shape in SHAPES}
    sys.stdout.write(f"{json.dumps({'us a call': found}, indent=2)}\n")


if __name__ == "__main__":
    main()
