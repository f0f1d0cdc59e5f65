# make demo and make test need Python >= 3.10 and make, nothing else: they set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KERNEL_TESTS := tests/lmn_kernels

.PHONY: help install demo test test-all check docs format test-interpret test-gpu audit bench bench-gpu bench-fuxictr bench-serving profile-training sanitize-gpu report clean

help:  ## what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(VENV)/.installed  ## set up .venv with everything, in the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[triton,dev]'
	touch $@

demo: $(VENV)/.installed  ## train pooling, DIN and LMN on Complete Journey and compare them (OUT=runs/demo)
	$(BIN)/python -m benchmarks.study demo --out $(or $(OUT),runs/demo)

test: $(VENV)/.installed  ## all that a user's machine must prove, Triton kernels in the interpreter; 8 minutes on two idle cores
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest --quiet --doctest-modules lmn_kernels lmn_model

test-all: $(VENV)/.installed  ## every test with coverage: also whole grids, compiles for four GPU targets, rehearsals of benchmarks
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not overnight' --cov --cov-report=term-missing:skip-covered
	$(BIN)/coverage report --include='lmn_kernels/*' --fail-under=98
	$(BIN)/coverage report --include='lmn_model/*' --fail-under=96

check: $(VENV)/.installed  ## style, types, layers of imports, words and the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_words.py
	$(MAKE) docs

docs: $(VENV)/.installed  ## the documentation as HTML in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html

format: $(VENV)/.installed  ## put the code in its style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-interpret: $(VENV)/.installed  ## only the kernel tests, in the interpreter
	$(BIN)/python -m pytest -n 2 --dist worksteal $(KERNEL_TESTS)

test-gpu:  ## the kernel tests on this machine's GPU, with the Python and torch that are there; installs nothing
	$(PYTHON) -c 'import torch; assert torch.cuda.is_available(), "no GPU"; print(torch.cuda.get_device_name(), torch.__version__)'
	$(PYTHON) -m pytest --durations=10 -m "not overnight" $(shell $(PYTHON) -c "import xdist" 2>/dev/null && echo --numprocesses=4 --dist=loadgroup) $(KERNEL_TESTS)

audit: $(VENV)/.installed  ## what every kernel costs on four GPUs, compiled here without one, against its budgets
	$(BIN)/python -m benchmarks.audit

bench: $(VENV)/.installed  ## the timing suite and the CPU targets, alone on the machine; result files in OUT (runs/bench)
	$(BIN)/python -m pytest benchmarks/kernels --results $(or $(OUT),runs/bench)/suite.json
	$(BIN)/python -m benchmarks.kernels.cpu --out $(or $(OUT),runs/bench)/cpu.json

bench-gpu:  ## checks and times everything on this machine's GPU in 8 minutes; result files in OUT (runs/bench); installs nothing
	$(PYTHON) -m benchmarks.gpu --out $(or $(OUT),runs/bench) $(if $(COMMIT),--commit $(COMMIT))

bench-fuxictr: $(VENV)/.installed  ## training against FuxiCTR: ROWS=folder of prepared rows, FUXICTR=its Python; result file in OUT (runs/bench)
	$(BIN)/python -m benchmarks.training.against_fuxictr --rows $(ROWS) --fuxictr-python $(FUXICTR) --max-steps 100 --out $(or $(OUT),runs/bench)/fuxictr.json

bench-serving: $(VENV)/.installed  ## latency of scoring with and without a memory: result file in OUT (runs/bench)
	mkdir -p $(or $(OUT),runs/bench)
	$(BIN)/python -m benchmarks.serving --out $(or $(OUT),runs/bench)/serving.json

profile-training: $(VENV)/.installed  ## where the time of lmn train goes, on synthetic rows or those in ROWS; result file in OUT (runs/bench)
	$(BIN)/python -m benchmarks.training.profile $(if $(ROWS),--rows $(ROWS)) --out $(or $(OUT),runs/bench)/train_profile.json

sanitize-gpu:  ## all ops under compute-sanitizer's memcheck and racecheck, on this machine's GPU; installs nothing
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 1 $(PYTHON) -m benchmarks.kernels.sanitize
	compute-sanitizer --tool racecheck --error-exitcode 1 $(PYTHON) -m benchmarks.kernels.sanitize

report: $(VENV)/.installed  ## docs/performance.md and its plots from benchmarks/results
	$(BIN)/python -m benchmarks.report

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .benchmarks docs/_build *.egg-info
