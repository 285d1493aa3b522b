# Every target sets up .venv by itself; `make help` lists them.

PYTHON ?= python3
JOBS ?= 2

PY := .venv/bin/python
# The environment is made anew when the pins, the package's metadata or the folder change.
READY := .venv/.ready-$(shell { pwd; cat requirements.txt pyproject.toml; } | cksum | tr -dc 0-9)
BUILT := _build/.book-is-built
SOURCES := requirements.txt _config.yml _toc.yml $(shell find book companion -type f \
	! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*')

# One thread per process: the numbers on the pages do not depend on the reader's core count.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PYTHONHASHSEED := 0

# Prints nothing when $(PYTHON) can make the environment, else what is wrong with it.
COMPLAINT = if ! command -v '$(PYTHON)' >/dev/null 2>&1; then \
	echo "'$(PYTHON)' was not found"; \
	elif ! v=$$('$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	then echo "'$(PYTHON)' does not run"; \
	else case $$v in 3.11|3.12|3.13) \
	'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null \
	|| echo "'$(PYTHON)' lacks its venv module (on Debian and Ubuntu: apt install python3-venv)" ;; \
	*) echo "'$(PYTHON)' is Python $$v" ;; esac; fi

.PHONY: help book test bench clean

help: ## say what the targets do
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

book: $(READY) ## build the executed book into _build/html
	@rm -rf _build/html/reports
	@BOOK_BUILD=1 $(PY) -c 'from jupyter_book.cli.main import main; main()' build . -W -n --keep-going --all
	@touch $(BUILT)
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

test: $(READY) $(BUILT) ## run every test: units, doctests, notebooks, pages in a browser
	@$(PY) -m pytest -n $(JOBS) --dist loadfile -r fEs

bench: $(READY) ## compare with what one would use instead; writes _build/bench.json
	@$(PY) -m benchmarks

clean: ## remove the built book and its caches; .venv stays
	rm -rf _build

$(BUILT): $(READY) $(SOURCES)
	@$(MAKE) --no-print-directory book

$(READY):
	$(eval WRONG := $(shell $(COMPLAINT)))
	$(if $(WRONG),$(error $(WRONG); this needs Python 3.11, 3.12 or 3.13: install one, or name it by `make PYTHON=/path/to/python`))
	@echo "Setting up .venv from requirements.txt (once; the first time takes some minutes)"
	@rm -f .venv/.ready-*
	@$(PY) -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		2>/dev/null || '$(PYTHON)' -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
