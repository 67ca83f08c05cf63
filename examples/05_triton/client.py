"""Ask Triton what digit an image shows, over HTTP and over gRPC.

python examples/05_triton/client.py out/triton/digits/1/model.engine image.png
"""

from __future__ import annotations

import argparse

import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from calibrators.preprocessing.images import open_image
from calibrators.preprocessing.preprocess import Preprocess
from engines import read_manifest


def main() -> None:
    """Preprocess as the manifest says, send, print the class with the highest score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="its manifest lies beside it; only that is read")
    parser.add_argument("image")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--http", default="127.0.0.1:8000")
    parser.add_argument("--grpc", default="127.0.0.1:8001")
    given = parser.parse_args()
    manifest = read_manifest(given.engine)
    preprocess = Preprocess.from_dict(manifest.passport.preprocess)
    batch = preprocess(open_image(given.image))[None]
    for name, module, url in (
        ("http", tritonclient.http, given.http),
        ("grpc", tritonclient.grpc, given.grpc),
    ):
        spec = manifest.inputs[0]
        tensor = module.InferInput(spec.name, batch.shape, np_to_triton_dtype(batch.dtype))
        tensor.set_data_from_numpy(batch)
        answer = module.InferenceServerClient(url).infer(given.model, [tensor])
        print(name, answer.as_numpy(manifest.outputs[0].name)[0].argmax())


if __name__ == "__main__":
    main()
