# Two commands do everything on a machine that has Python (with venv) and make:
#   make quickstart            the main job on synthetic cells; DATA=path on real ones; IMAGES=folder classifies your own
#   make test                  every check that a change must pass
#
# PYTHON=... chooses the interpreter; left out, it is the newest of 3.13, 3.12 and 3.11 that runs.

PYTHON ?= $(shell for v in 3.13 3.12 3.11; do \
	for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python; do \
	if $$p -c 'import ensurepip, sys; sys.exit(sys.version.split(".")[:2] != sys.argv[1].split("."))' $$v \
	>/dev/null 2>&1; then echo $$p; exit; fi; done; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
DATA ?=
# Modules with annotated array shapes, which the tests check; a comma follows each name.
SHAPED := $(shell grep -rl '^from jaxtyping' src | sed 's|^src/||; s|/|.|g; s|\.py$$|,|' | tr -d '\n')
# Tests that compile no network.
QUICK := tests/data tests/evaluate/test_evaluate.py tests/evaluate/test_reliability.py tests/test_package.py tests/test_predictions.py tests/test_tensors.py
# OLDEST_TOOLS: what test-oldest needs in addition to the run-time dependencies. TOOLS: the pinned tools of a release.
OLDEST_TOOLS := 'pytest>=8.3' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6' 'hypothesis>=6.110' 'beartype>=0.20' 'tifffile>=2024.8' 'pycocotools>=2.0.8' pandas
TOOLS := build==1.6.1 twine==7.0.0 cyclonedx-bom==7.5.0 zizmor==1.32.0

.PHONY: quickstart quick test test-all test-oldest check unit coverage wheel extras workflows release-check docs docs-browser
.PHONY: bench bench-all bench-compare clean

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	touch $@

quickstart: $(VENV)/.run
	$(BIN)/python examples/quickstart.py $(DATA) $(if $(IMAGES),--classify $(IMAGES))

test: check unit wheel

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# For use while coding: lint, types of changed files, and the tests that compile no network.
quick: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git diff --name-only --diff-filter=d HEAD -- '*.py' | xargs -r $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2 -q -m "not slow" $(QUICK)

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests --jaxtyping-packages=$(SHAPED)beartype.beartype
	$(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules src/cellscan

# Lines and branches that the tests run, without doctests, in one number; fails below the floor. Settings: pyproject.toml.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests \
	--cov=cellscan --cov-report=term-missing:skip-covered --cov-report=xml --cov-fail-under=95

# The wheel as a user installs it: in its own environment, with its declared dependencies, outside this folder.
wheel: $(VENV)/.dev
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m build --quiet --wheel --sdist .
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	cd / && PATH=$(abspath $(VENV))-wheel/bin:$$PATH $(abspath $(BIN))/pyright --verifytypes cellscan --ignoreexternal
	cd / && $(abspath $(VENV))-wheel/bin/python -I -W error::DeprecationWarning:cellscan $(CURDIR)/tests/try_wheel.py
	rm -rf $(VENV)-wheel

# Each extra alone: what it is for names the command without it, and works with it. Needs the network; not part of `make test`.
extras: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --quiet --wheel .
	$(PYTHON) tests/try_extras.py dist/*.whl

test-all: check unit wheel
	$(BIN)/python -m pytest -m slow tests

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) -e '.[docs]'
	touch $@

# Builds the site in docs/_build/html, without network, and runs every example. A warning or a broken internal link is an error.
docs: $(VENV)/.docs
	rm -rf docs/generated
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

# Checks the site and the HTML pages of results in a browser. Installs Debian's Chromium if there is none, which needs root.
docs-browser: docs
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium)
	$(PIP) 'websocket-client>=1.8'
	$(BIN)/python docs/check_browser.py docs/_build/html
	$(BIN)/python docs/check_pages.py

# Runs the quick tests and the classifier tests with the oldest release of every run-time dependency that pyproject.toml allows.
OLDEST_PYTHON ?= $(shell for p in python3.11 $$HOME/.pyenv/versions/3.11.*/bin/python; do \
	if $$p -c 'import ensurepip' >/dev/null 2>&1; then echo $$p; exit; fi; done; echo python3.11)

$(VENV)-oldest/.made: pyproject.toml tests/oldest.txt
	$(OLDEST_PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip --disable-pip-version-check install --quiet --upgrade pip
	$(VENV)-oldest/bin/python -m pip --disable-pip-version-check install --quiet -c tests/oldest.txt -e . $(OLDEST_TOOLS)
	touch $@

# Old Flax uses names that JAX deprecates: these warnings are printed and are not errors.
test-oldest: $(VENV)-oldest/.made
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile -q -m "not slow" -W default::DeprecationWarning $(QUICK) tests/test_classifier.py

# The tools that make and check releases and workflows, in their own environment.
$(VENV)-tools/.made: Makefile
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip --disable-pip-version-check install --quiet $(TOOLS)
	touch $@

# Searches the workflows and dependabot.yml for security weaknesses, without network.
workflows: $(VENV)-tools/.made
	$(VENV)-tools/bin/zizmor --offline --persona=pedantic .

# Run before a tag: checks that two builds are identical, checks metadata and the installed wheel, writes checksums and the list of components.
# The list is published: the path of the wheel on this machine is removed from it.
release-check: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
release-check: $(VENV)-tools/.made
	rm -rf dist dist-again $(VENV)-bare
	$(VENV)-tools/bin/python -m build --quiet --outdir dist .
	$(VENV)-tools/bin/python -m build --quiet --outdir dist-again .
	cd dist && sha256sum *.whl *.tar.gz >SHA256SUMS
	cd dist-again && sha256sum --check ../dist/SHA256SUMS
	$(VENV)-tools/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(PYTHON) -m venv $(VENV)-bare
	$(VENV)-bare/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	cd / && $(abspath $(VENV))-bare/bin/cellscan
	cd / && $(abspath $(VENV))-bare/bin/python -I $(CURDIR)/tests/try_wheel.py
	$(VENV)-tools/bin/cyclonedx-py environment --output-reproducible --of JSON -o dist/sbom.cdx.json $(VENV)-bare/bin/python
	sed -i 's|file://$(CURDIR)/dist/||' dist/sbom.cdx.json
	rm -rf dist-again $(VENV)-bare

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/data_path.py $(DATA)

# The quick benchmarks, as ratios of times on one machine: writes benchmarks/ratios.json.
bench-all: $(VENV)/.dev
	$(BIN)/python benchmarks/ratios.py

# Compares benchmarks/ratios.json with that of the release OLD; by default the last tag.
OLD ?= $(shell git describe --tags --abbrev=0)
bench-compare: $(VENV)/.dev
	git show $(OLD):benchmarks/ratios.json >$(VENV)/ratios-old.json
	$(BIN)/python benchmarks/ratios.py --compare $(VENV)/ratios-old.json

clean:
	rm -rf $(VENV) $(VENV)-wheel $(VENV)-oldest $(VENV)-tools $(VENV)-bare .programs dist dist-again quickstart_output
