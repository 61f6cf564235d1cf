# The entry points; each does the set-up it needs, in this clone.
#
#   make serve    serve the demo application; APP=module:callable for another
#   make test     run the tests; ARGS="-k name" for some of them, JOBS=2 side by
#                 side, CORE=sanitized on a core with AddressSanitizer and
#                 UndefinedBehaviorSanitizer, CORE=raced on one with
#                 ThreadSanitizer, CORE=parallel on one whose threads are
#                 scheduled as if there were no GIL
#   make coverage which lines of the C core the tests run: build/coverage/report
#   make check    linters, types, layers, strict compile of the C core
#   make bench    servers side by side: ARGS="run --help", simulate, predict,
#                 instructions, files, deploys, newcomer
#   make load     locust on a running server: USERS, TIME, HOST, METRICS, SCENARIO
#   make docs     write the generated reference pages
#   make site     the documents as a site: build/site
#   make links    ask whether the pages of others that the documents name are there
#   make wheel    a wheel for this machine and the source archive, tried: build/release
#   make release  check version, changelog and tag, then the same; uploads nothing
#   make clean    remove everything that was made
#
# PYTHON is the interpreter to build on, VENV the virtual environment to make.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 0
APP ?= poolsrv.demo:application
ARGS ?=
CORE ?=
USERS ?= 32
TIME ?= 30s
HOST ?= http://127.0.0.1:8000
METRICS ?= http://127.0.0.1:9464/metrics
SCENARIO ?= Mixed

BIN := $(VENV)/bin
C_FILES := $(shell find poolsrv/csrc tests/c -name "*.[ch]")
BUILT_FROM := pyproject.toml setup.py $(C_FILES)
EXTRAS ?= test,load,check
# uv, if it is there: it takes a third of the time of pip.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,\
	$(BIN)/python -m pip install --quiet --disable-pip-version-check)
# Every server that a test starts would compile the whole package: 0.3 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test coverage check bench load docs site links wheel release clean

serve: $(VENV)/.installed
	@exec $(BIN)/poolsrv serve $(APP) $(ARGS)

test: $(VENV)/.installed-dev $(CORE:%=$(VENV)/.core-%)
	@$(if $(CORE),$(WITH_CORE)) $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# Every process adds to the counts as it ends, unless it is killed.
coverage: $(VENV)/.installed-dev
	@mkdir -p build/coverage && find build/coverage -name '*.gcda' -delete
	-@$(MAKE) --no-print-directory test CORE=coverage
	@$(BIN)/gcovr --root . --object-directory build/coverage/objects --filter poolsrv/csrc \
		--gcov-ignore-parse-errors=negative_hits.warn_once_per_file \
		--html-details build/coverage/report/index.html --txt

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml poolsrv._core
	$(BIN)/lint-imports
	POOLSRV_BUILD=strict $(BIN)/python setup.py --quiet build_ext --force \
		--build-lib build/strict --build-temp build/strict
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m loadtests._bench $(or $(ARGS),run)

load: $(VENV)/.installed-dev
	@$(BIN)/locust -f loadtests/ $(SCENARIO) --headless --only-summary \
		--users $(USERS) --spawn-rate $(USERS) --run-time $(TIME) \
		--host $(HOST) --metrics-url $(METRICS) $(ARGS)

docs: $(VENV)/.installed
	$(BIN)/python -m poolsrv.settings.reference
	$(BIN)/python -m poolsrv.commands.moving
	$(BIN)/python -m poolsrv.commands.manual > docs/poolsrv.1
	$(BIN)/python -m poolsrv.exporter.reference > METRICS.md
	$(BIN)/python -m poolsrv.operator_messages > ERRORS.md
	$(BIN)/python dashboards/generate.py > dashboards/poolsrv.json

# A link that leads nowhere, or a page that is in no menu, is an error.
site: $(VENV)/.site
	@rm -rf build/site
	@$(BIN)/sphinx-build -q -W --keep-going -b html -d build/site-doctrees -c docs/site . build/site
	@echo "build/site/index.html"

# Not part of CI, which must not fail because somebody else's page is down.
links: $(VENV)/.site
	@$(BIN)/sphinx-build -q -b linkcheck -d build/site-doctrees -c docs/site . build/links

$(VENV)/.site: $(BIN)/python pyproject.toml
	@$(INSTALL) --editable '.[docs]'
	@touch $@

wheel: $(VENV)/.release
	@$(BIN)/python dist/release.py build

release: $(VENV)/.release
	@$(BIN)/python dist/release.py check
	@$(BIN)/python dist/release.py build
	@echo "To upload: $(BIN)/twine upload build/release/*, and the wheels of cibuildwheel"

$(VENV)/.release: $(BIN)/python pyproject.toml
	@$(INSTALL) --editable '.[release]'
	@touch $@

clean:
	rm -rf .venv* build *.egg-info poolsrv/_core.*.so
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find poolsrv tests loadtests dashboards -name __pycache__ -exec rm -rf {} +

# Editable, so that Python files need no new installation. Who only serves needs
# no tools. With the tools, a C file that changes is compiled, and nothing else.

$(VENV)/.installed: $(BIN)/python $(BUILT_FROM)
	@echo "installing poolsrv in $(VENV)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dependencies: $(BIN)/python pyproject.toml setup.py
	@echo "installing poolsrv and its tools in $(VENV)"
	@$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.installed-dev

$(VENV)/.installed-dev: $(C_FILES) | $(VENV)/.dependencies
	@[ -z "$$(find $(C_FILES) -newer $@ 2>&1)" ] || { echo "compiling the core" && \
		$(BIN)/python setup.py --quiet build_ext --inplace --force; }
	@touch $@ $(VENV)/.installed

# A core that is built otherwise (setup.py) lies apart from the one that the
# installation has made; the environment of tests/cores puts it in its place.

CORE_BUILD = $(CURDIR)/build/$(CORE)
WITH_CORE = PYTHONPATH=$(CURDIR)/tests/cores CORE_BUILD=$(CORE_BUILD) $(WITH_$(CORE))
WITH_sanitized = \
	SANITIZERS=$$($(CC) -print-file-name=libasan.so):$$($(CC) -print-file-name=libubsan.so)
WITH_raced = SANITIZERS=$$($(CC) -print-file-name=libtsan.so)

$(VENV)/.core-%: $(VENV)/.installed-dev $(BUILT_FROM)
	@echo "building the core: $*"
	@POOLSRV_BUILD=$* $(BIN)/python setup.py --quiet build_ext --force \
		--build-lib build/$* --build-temp build/$*/objects
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || \
		{ echo "$(PYTHON) is missing: apt-get install python3, or PYTHON=path" >&2; exit 1; }
	@$(PYTHON) -c "$$PREREQUISITES"
	@$(if $(UV),$(UV) venv --quiet --seed --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

# Runs on any Python 3, to say what is missing rather than fail on it.
define PREREQUISITES
import importlib.util, os, shutil, sys, sysconfig

def need(fact, remedy):
    if not fact:
        sys.exit("poolsrv cannot be built with %s: %s" % (sys.executable, remedy))

need(
    sys.version_info >= (3, 11),
    "it is Python %d.%d, and 3.11 is needed: PYTHON=path names another" % sys.version_info[:2],
)
need(
    importlib.util.find_spec("ensurepip"),
    "the module venv is incomplete: apt-get install python3-venv",
)
need(
    os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
    "Python.h is missing: apt-get install python3-dev",
)
compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
need(
    shutil.which(compiler),
    "the C compiler %s is missing: apt-get install gcc libc6-dev" % compiler,
)
endef
export PREREQUISITES
