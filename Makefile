# make test sets everything up in .venv the first time; later calls go straight to the tests.
# Needed: Python 3.11 or newer with pip and venv, make, a C++ compiler (g++ or clang++; CXX chooses one).

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
WORKERS ?= auto
NATIVE := $(wildcard $(addprefix src/prunery/native/,CMakeLists.txt *.cpp *.h engine/*.cpp engine/*.h))

.PHONY: env test demo check docs taste lock clean told

env: .venv/.built

test: .venv/.built
	.venv/bin/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist worksteal $(ARGS)

demo: .venv/.built
	.venv/bin/prunery demo

check: .venv/.built
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# The reference from the code; then every program that the documentation shows is run, every link looked up.
docs: .venv/.built
	.venv/bin/python tools/reference.py
	.venv/bin/python -m pytest -q tests/docs tests/examples

taste:
	@$(PYTHON) tools/taste.py

lock: $(UV)
	$(UV) pip compile -q --universal --python-version 3.11 --extra dev --extra tensorboard --group build \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml -o requirements.lock

# Everything that make made, the environment included; what runs wrote stays.
clean:
	rm -rf .venv .tools build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

told:
	@test -e .venv/.locked || echo "prunery: setting up .venv, once: PyTorch and all else, 5.8 GB on disk," \
		"half a minute where packages come fast, many minutes on a slow line"

# Two stamps: the locked packages are slow to install and rarely change, the project itself is quick.
.venv/.locked: requirements.lock | told $(UV)
	@$(need_python)
	@$(need_compiler)
	test -x .venv/bin/python || $(UV) venv -q --python "$(PYTHON)" .venv
	$(UV) pip install -q --python .venv/bin/python -r requirements.lock
	@touch $@

.venv/.built: .venv/.locked pyproject.toml $(NATIVE)
	@$(need_compiler)
	@echo "prunery: compiling its C++ kernels, minutes, more on a busy machine, and silent until it is done; later only when they change"
	$(UV) pip install -q --python .venv/bin/python --no-deps --no-build-isolation --config-setting build-dir=build/native -e .
	@touch $@

.tools/bin/uv:
	@$(need_python)
	@$(need_compiler)
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "prunery: $(PYTHON) has no venv (expected: Python with pip and venv): install it, e.g. apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv .tools
	.tools/bin/python -m pip install -q --disable-pip-version-check uv

define need_python
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	seen="$(or $(PYTHON),python3)"; version=$$("$$seen" -V 2>/dev/null) || version="not found"; \
	echo "prunery: needs Python 3.11 or newer (seen: $$seen, $$version): install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; }
endef

# CXX may hold a launcher or flags after the command, as in CXX="ccache g++".
define need_compiler
set -- $${CXX:-c++ g++ clang++}; test -z "$$CXX" || set -- "$$1"; \
for compiler; do command -v "$$compiler" >/dev/null && exit 0; done; \
echo "prunery: needs a C++17 compiler (seen: $${CXX:-none}; expected: g++ or clang++ on PATH, or CXX set to one): install one, e.g. apt install g++" >&2; \
exit 1
endef
