"""Engines → latency, accuracy, report.

In: callables and labelled samples. Out: ``report.json``, ``report.html``, tables.
May import: itself, artefacts, calibrators.samples.data, calibrators.preprocessing.preprocess;
engines and quantization in ``__main__`` only.

From Python, for a summary of your own:

    from benchmarks.accuracy import compare_accuracy, evaluate_all
    from benchmarks.latency import compare_speed, measure
    from benchmarks.systems import query_of

    systems = {"fp32": fp32_engine, "int8": int8_engine}   # {"input": array} → {"output": array}
    found = evaluate_all(systems, samples, task, inputs=specs, batch_size=8, reference="fp32")
    found["int8"].value                  # 0.976, the headline figure found["int8"].metric
    found["int8"].agreement              # SQNR, cosine, same top-1 as the reference
    drop = compare_accuracy(found["fp32"], found["int8"])
    drop.drop, drop.interval, drop.mcnemar, drop.verdict   # 0.4 points, (0.0, 1.0), p, "worse"

    queries = {name: query_of(call, feeds) for name, call in systems.items()}
    times = measure(queries, rules=TimingRules(min_time_s=1.0))
    times["int8"].figures["p50_ms"]      # Figure(value, interval); also p90 p95 p99 max mean …
    times["int8"].stability              # stable or not, and why
    speed = compare_speed(times["fp32"], times["int8"])
    speed.speedup, speed.interval, speed.verdict           # 2.41, (2.38, 2.45), "faster"

``task`` is a ``ClassificationTask`` (the default), ``DetectionTask``, ``SegmentationTask``,
``RegressionTask``, ``CustomTask`` or ``read_task("task.yaml")``; ``labelled=False`` compares
outputs only. Where everything is:

    statistics/   percentiles, bootstrap, McNemar, stability: arrays in, numbers out
    latency/      interleaved rounds, LoadGen scenarios, sweeps
    accuracy/     tasks, agreement, paired drop
    machine/      environment, steadiness, power, memory
    report/       the document and its renderings, limits, explanation
    results/      stored reports of reference machines; ``python -m benchmarks table`` shows them
    campaign.py   the steps of ``python -m benchmarks``, in order
"""
