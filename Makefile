# `make demo` and `make test` need only Python 3.10 or later: they make a virtual environment, install and run.
# `make PYTHON=/path/to/python demo` runs in an environment that is there already, and changes nothing in it.

BOOTSTRAP ?= python3
WORKERS ?= 2

ifdef PYTHON
# The checkout is reached through a link named after the package, so nothing need be installed in that environment.
ready := .import/foldfuse
run := PYTHONPATH="$(CURDIR)/.import$${PYTHONPATH:+:$$PYTHONPATH}" "$(PYTHON)"
else
ready := .venv/installed
run := .venv/bin/python
endif

.PHONY: help demo gallery test lint clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    train a character language model on Python's own source text, let it write, show its kernels"
	@echo "make gallery run every example, and write docs/gallery.md from what they measured; about 20 minutes"
	@echo "make test    run the tests on the CPU"
	@echo "make lint    check the style"
	@echo "make clean   remove the virtual environment and everything else that these commands made"
	@echo
	@echo "Each makes .venv where it is missing; with PYTHON=/path/to/python they use that environment instead."

# That a kernel does not fit the GPU it is compiled for is shown, and is no failure of the demo.
demo: $(ready)
	$(run) examples/character_language_model.py
	@mkdir -p build
	-$(run) -m foldfuse.runtime.cli compile examples/character_language_model.py:language_model --entry loss \
	    --target sm_90 --patience 30 --out build/demo_kernels

# CPU time is told as that of one core, and scikit-learn's baselines would take more.
gallery: export OMP_NUM_THREADS ?= 1
gallery: $(ready)
	$(run) examples/gallery.py --picture

# One thread per worker: the tests' arrays are small, and workers that share cores only wait for each other. The kernels
# run in Triton's interpreter in a leg of their own: Triton asks for it when a kernel is defined.
test: export OMP_NUM_THREADS ?= 1
test: $(ready)
	$(run) -m pytest -n $(WORKERS) --ignore=tests/interpreter
	TRITON_INTERPRET=1 $(run) -m pytest -n $(WORKERS) tests/interpreter

lint: $(ready)
	$(run) -m ruff check .

clean:
	rm -rf .venv .import build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml
	$(BOOTSTRAP) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --editable '.[test,demo,examples]'
	touch $@

.import/foldfuse:
	mkdir -p .import
	ln -sfn .. $@
