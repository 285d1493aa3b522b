# Every target sets up .venv by itself; `make help` lists them.

PYTHON ?= python3
JOBS ?= 2

PY := .venv/bin/python

# WHO: what a Python and the environments made from it say alike. OWN: is this one an environment's?
WHO := import os, sys; print(sys.version_info[:2], os.path.realpath(sys.base_prefix))
OWN := import pip, sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)
# "yes" if the Python of .venv starts, is new enough and is .venv's own, and is no other than
# the one that the command line names, if it names one.
FIT := $(shell $(PY) -c '$(OWN)' 2>/dev/null && $(if $(filter command,$(origin PYTHON)), \
	test "`$(PY) -c '$(WHO)'`" = "`'$(PYTHON)' -c '$(WHO)' 2>/dev/null`" &&) echo yes)

# Stamps. The environment is made anew when it is not fit, and renewed when the pins, the package's
# metadata or the folder change; the book is built anew when the environment or a source changes.
READY := .venv/.ready-$(shell { pwd; cat requirements.txt pyproject.toml; } | cksum | tr -dc 0-9)
BUILT := _build/.book-is-built-$(shell find requirements.txt _config.yml _toc.yml book companion \
	-type f ! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*' ! -name '.*' \
	-exec cksum {} + | LC_ALL=C sort | cksum | tr -dc 0-9)

# JOBS kernels execute the book, JOBS processes test it.
export JOBS

# One thread per process: the numbers on the pages do not depend on the reader's core count.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PYTHONHASHSEED := 0

NEEDS := this needs Python 3.11 or newer (tested with 3.11 and 3.13)
WRONG :=
# Prints nothing when $(PYTHON) can make the environment, else what is wrong with it.
COMPLAINT = if ! command -v '$(PYTHON)' >/dev/null 2>&1; then \
	echo "'$(PYTHON)' was not found"; \
	elif ! v=$$('$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	then echo "'$(PYTHON)' does not run"; \
	else case $$v in 2.*|3.?|3.10) echo "'$(PYTHON)' is Python $$v" ;; \
	*) '$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || echo "'$(PYTHON)' lacks its venv" \
	"module (on Debian and Ubuntu: apt install python$$v-venv)" ;; esac; fi

.NOTPARALLEL:
.PHONY: help book test notebooks bench clean FORCE

help: ## say what the targets do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

book: $(READY) ## build the executed book into _build/html
	@rm -rf _build/.book-is-built* _build/html/reports
	@BOOK_BUILD=1 $(PY) -c 'from jupyter_book.cli.main import main; main()' build . -W -n --keep-going --all
	@mkdir -p _build && touch $(BUILT)
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

test: $(READY) $(BUILT) ## run every test: units, doctests, notebooks, pages in a browser
	@$(PY) -m pytest -n $(JOBS) --dist loadgroup -r fEs

notebooks: $(READY) $(BUILT) ## write launchable copies: REPOSITORY=<url> REF=<commit or tag>
	@$(PY) book/_ext/launchable.py --repository '$(REPOSITORY)' --ref '$(REF)' \
		--site '$(BOOK_BASEURL)'

bench: $(READY) ## compare with what one would use instead; writes _build/bench.json
	@$(PY) -m benchmarks

clean: ## remove the built book and its caches; .venv stays
	rm -rf _build

$(BUILT): $(READY)
	@$(MAKE) --no-print-directory book

$(READY): $(if $(FIT),,FORCE)
	$(if $(FIT),,$(eval WRONG := $(shell $(COMPLAINT))))
	$(if $(WRONG),$(error $(WRONG); $(NEEDS): install one, or name it by `make PYTHON=/path/to/python`))
	@echo "Setting up .venv from requirements.txt (once; the first time takes some minutes)"
	@rm -f .venv/.ready-*
	$(if $(FIT),,@'$(PYTHON)' -m venv --clear .venv)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
