"""Runs in the environment of tests/integration/test_engines_triton.py, which has tritonclient.

    python triton_client.py FOLDER HTTP_PORT GRPC_PORT

Reads ``FOLDER/<model>.npz`` (inputs by name), writes ``FOLDER/<protocol>.<model>.npz`` and
``FOLDER/seen.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def tensors(module: Any, arrays: dict[str, np.ndarray]) -> list[Any]:
    made = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def outputs(answer: Any, names: list[str]) -> dict[str, np.ndarray]:
    return {name: answer.as_numpy(name) for name in names}


def burst(
    client: Any, module: Any, model: str, arrays: dict[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """One request a sample, all in flight together: what the dynamic batcher is for."""
    size = len(next(iter(arrays.values())))
    requests = [
        client.async_infer(
            model, tensors(module, {name: array[[i % size]] for name, array in arrays.items()})
        )
        for i in range(count)
    ]
    answers = [request.get_result() for request in requests]
    names = [each["name"] for each in client.get_model_metadata(model)["outputs"]]
    return {name: np.concatenate([each.as_numpy(name) for each in answers]) for name in names}


def counts(client: Any) -> tuple[int, int]:
    """Requests answered and runs needed for them, so far."""
    stats = client.get_inference_statistics("sum")["model_stats"][0]
    return int(stats["inference_count"]), int(stats["execution_count"])


def main(folder: Path, http_port: str, grpc_port: str) -> None:
    seen: dict[str, Any] = {}
    clients = {
        "http": (
            tritonclient.http,
            tritonclient.http.InferenceServerClient(f"127.0.0.1:{http_port}", concurrency=8),
        ),
        "grpc": (
            tritonclient.grpc,
            tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}"),
        ),
    }
    models = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
    http = clients["http"][1]
    for protocol, (module, client) in clients.items():
        for model, arrays in models.items():
            answer = client.infer(model, tensors(module, arrays))
            names = [each["name"] for each in http.get_model_metadata(model)["outputs"]]
            np.savez(folder / f"{protocol}.{model}.npz", **outputs(answer, names))
            wrong = {name: np.repeat(array, 2, axis=1) for name, array in arrays.items()}
            try:
                client.infer(model, tensors(module, wrong))
            except InferenceServerException as err:
                seen[f"{protocol} {model} refused"] = str(err)
    before = counts(http)
    for model, count in (("sum", 8), ("types", 6)):
        together = burst(http, tritonclient.http, model, models[model], count)
        np.savez(folder / f"burst.{model}.npz", **together)
    after = counts(http)
    seen["inferences"], seen["runs"] = after[0] - before[0], after[1] - before[1]
    seen["config"] = {model: http.get_model_config(model) for model in models}
    seen["broken is ready"] = http.is_model_ready("broken")
    for path in folder.glob("*.pbtxt"):  # as Triton's own definition reads them
        parsed = text_format.Parse(path.read_text(), ModelConfig())
        seen[path.name] = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
