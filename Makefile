# Two commands need nothing but python3 and make: `make demo` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := evalkit tasks models train leaderboard_app tests benchmarks

# pip would compile every module of every package, of which a third is ever imported; an import compiles it then.
PIP_INSTALL = $(BIN)/pip install -q --no-compile -c constraints.txt
# Where this is set, each of hundreds of processes compiles its imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types collected tests docs campaign setup clean chromium axe

demo: $(VENV)/.installed
	@echo "== evalkit run: the embedded model on DriveLM's miniature"
	$(BIN)/evalkit run --model mini-internvl-tiny --task drivelm --split miniature
	@echo
	@echo "== adapting it to drawn medical scans (about two minutes on two cores)"
	$(BIN)/python -m mini_internvl_train.demo demo
	@echo
	@echo "Miniatures are drawn images: they show that everything works, and are no benchmarks."
	@echo "Next, what the adapted model still gets wrong:"
	@echo "  $(BIN)/evalkit show demo/runs/*final/gmai-mmbench@miniature/* --wrong"

test:
	@$(MAKE) --no-print-directory -j 2 setup chromium axe
	@$(MAKE) --no-print-directory -j 2 types collected lint docs
	@$(MAKE) --no-print-directory tests
	@echo
	@echo "All checks passed. Next: 'make demo', or CONTRIBUTING.md to change something."

lint: $(VENV)/.installed-dev
	@echo "== lint"
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/vulture
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/jactionlint --profile correctness --strict-exit \
	  .github/workflows/*.yml .github/dependabot.yml check/action.yml examples/gate/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

types: $(VENV)/.installed-dev
	@echo "== types"
	$(BIN)/mypy

# A first import compiles and keeps what it compiled. Done once beside the checks: the test processes, which
# all import everything at the same time, would each do it.
collected: $(VENV)/.installed-dev
	@echo "== tests: first import"
	@said=$$(OMP_NUM_THREADS=1 $(BIN)/python -m pytest --collect-only -q 2>&1) || { echo "$$said"; exit 1; }

tests: $(VENV)/.installed-dev chromium axe
	@echo "== tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal --durations 15

# The documentation site, in site/; a link that leads nowhere or a page that no menu names is an error.
docs: $(VENV)/.installed-docs
	@echo "== documentation"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict
	@echo "It is in site/. '$(BIN)/mkdocs serve' shows it at http://127.0.0.1:8000, and anew when a page is saved."

# Kills, full disks and hostile inputs (docs/reliability.md); STATE=FILE keeps results, so that it can go on.
MINUTES ?= 10
SEED ?= 1
campaign: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaign --minutes $(MINUTES) --seed $(SEED) $(if $(STATE),--state $(STATE))

# The leaderboard's browser tests drive Debian's Chromium; where there is none they are skipped and say so.
chromium:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then \
	  echo "== installing Chromium for the browser tests"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-dejavu-core \
	    >/dev/null || echo "Chromium could not be installed: the browser tests are skipped"; \
	fi

# axe-core looks for what screen readers and weak eyes cannot use; without npm its test is skipped and says so.
AXE := node_modules/axe-core/axe.min.js
axe:
	@if ! test -f $(AXE) && command -v npm >/dev/null; then \
	  echo "== fetching axe-core for the browser tests"; \
	  npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent axe-core@4.11 \
	    || echo "axe-core could not be fetched: its test is skipped"; \
	fi

setup: $(VENV)/.installed-dev

$(VENV)/bin/pip:
	@echo "== virtual environment in $(VENV)"
	$(PYTHON) -c "import sys; assert (3, 10) <= sys.version_info < (3, 14), f'Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...'"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo "== installing evalkit (about two minutes)"
	$(PIP_INSTALL) -e '.[train,video]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo "== installing evalkit with what builds its documentation (about two minutes)"
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo "== installing evalkit with everything for development (about three minutes)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
