#!/bin/sh
# build-engine, through NVIDIA's own entry point where the image has one: that sets up CUDA's forward
# compatibility with the driver of the host.
nvidia=/opt/nvidia/nvidia_entrypoint.sh
if [ -x "$nvidia" ]; then
  exec "$nvidia" build-engine "$@"
fi
exec build-engine "$@"
