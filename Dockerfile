# Build engines in NVIDIA's TensorRT container; the tag decides the TensorRT version.
#   nvcr.io/nvidia/tensorrt:26.05-py3          TensorRT 10.16.1, the last with calibrators (default;
#                                              its arm64 variant serves Orin on JetPack 7.2)
#   nvcr.io/nvidia/tensorrt:26.08-py3          TensorRT 11.2.1, explicit INT8 only
#   nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel  JetPack 6.1 and 6.2 (Orin)
#   nvcr.io/nvidia/l4t-tensorrt:r8.6.2-devel   JetPack 6.0 (Orin)
#
#   docker build -t int8 .
#   docker run --rm --gpus all -v "$PWD:/data" -u "$(id -u):$(id -g)" int8 --onnx /data/model.onnx ...
ARG BASE=nvcr.io/nvidia/tensorrt:26.05-py3
FROM ${BASE}

# TensorRT's Python module comes with the image, in the system's Python; PyCUDA is compiled against
# the image's CUDA. The extra `tensorrt` would bring a second TensorRT, so `container` has PyCUDA alone.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PYTHONUNBUFFERED=1
WORKDIR /opt/int8
COPY pyproject.toml README.md build_engine.py ./
COPY int8 int8
COPY pipeline pipeline
COPY graphs graphs
COPY artefacts artefacts
COPY calibrators calibrators
COPY quantization quantization
COPY engines engines
COPY benchmarks benchmarks
COPY entrypoint.sh /usr/local/bin/int8-entrypoint
# The sources go: beside them Python would find its modules there, without the compiled counter.
# DL3013 reads the extras of this checkout as an unpinned package.
# hadolint ignore=DL3013
RUN python3 -m pip install --no-cache-dir '.[report,container]' \
    && rm -rf /opt/int8/* \
    && useradd --create-home --uid 10001 builder

USER 10001
WORKDIR /data
ENTRYPOINT ["int8-entrypoint"]
