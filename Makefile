# setup · login · build · demo · transfer-demo · detect-demo · study-demo · test · test-cluster · test-cuda-image · check · bench · scale · chaos · fuzz · golden. Everything runs in .venv, which `make setup` builds from nothing.
PY := .venv/bin/python
export PYTHONNOUSERSITE := 1
# Processes that `make test` shares the Python tests among: one a core, of 4 GB, eight at most; 0: this one alone.
WORKERS ?= $(shell awk -v n="$$(nproc)" '/^MemAvailable/ { m = int($$2 / 4e6) } \
    END { n = n < m ? n : m; n = n < 8 ? n : 8; print (n > 1 ? n : 0) }' /proc/meminfo)

.PHONY: setup build demo transfer-demo detect-demo study-demo test test-cpp test-cluster test-cuda-image check bench scale chaos fuzz golden login

setup:                  ## virtual environment, Horovod, extension
	@install/setup.sh

login:                  ## .venv-login/bin/hpcscale: images and jobs, nothing to compile
	@install/login.sh

build: setup            ## the extension again, after a change in cpp/
	@mkdir -p build && PATH="$(CURDIR)/.venv/bin:$$PATH" flock build/.lock $(PY) setup.py -q build_ext --inplace

demo: setup             ## real photographs to a trained model and a report; DATA=folder MANIFEST=file for your own
	@$(PY) -m hpcscale.demos.chain $(if $(DATA),--data "$(DATA)") $(if $(MANIFEST),--manifest "$(MANIFEST)")

transfer-demo: setup    ## what weak labels of clothes bring to few clean ones, by three methods; a quarter of an hour
	@$(PY) -m hpcscale.demos.transfer

detect-demo: demo       ## a detector of blood cells from the demo's network, killed on the way; VOC=folder of its layout
	@$(PY) -m hpcscale.demos.detection --data "$(or $(VOC),../shared/data/blood-cells)"

study-demo: setup       ## what more weak labels of clothes bring: a study from one file, killed twice; a quarter of an hour
	@$(PY) -m hpcscale.demos.study

test: setup test-cpp    ## every test but those that need a GPU or a cluster
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

test-cpp: setup         ## C++ tests, under address and undefined-behaviour sanitizers
	@.venv/bin/cmake -S . -B build/sanitize -G Ninja -DHPCSCALE_TESTS=ON -DHPCSCALE_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	@.venv/bin/cmake --build build/sanitize
	.venv/bin/ctest --test-dir build/sanitize --output-on-failure

test-cluster: setup     ## the whole chain and every fault, on a real Slurm cluster of this machine; as root
	@tests/live/install
	$(PY) -m pytest -m cluster tests/live

test-cuda-image: setup ## the CUDA image, built and tested without a GPU, as root; 4 GB of downloads
	@tests/live/install
	$(PY) -m pytest -m cuda_image tests/live

check: setup            ## ruff, mypy, clang-format, shellcheck
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/clang-format --dry-run --Werror $$(git ls-files 'cpp/*.hpp' 'cpp/*.cpp')
	shellcheck $$(git ls-files '*.sh' '*.sbatch' '.ci/run') $$(git ls-files tests/live | grep -v '\.')

bench: setup            ## hpcscale, its peers and the limit of the hardware in one run; prints ratios
	$(PY) -m benchmarks

scale: setup            ## 3.5e9 samples and 336 ranks without pictures: memory, time to plan, evenness, resume; minutes, 5 GB of disk
	$(PY) -m benchmarks.scale

chaos: setup            ## kill -9 at random moments of ingest and train; the results stay the same
	$(PY) -m pytest -m chaos

fuzz: setup             ## thousands of bad inputs, and what came of them; ARGS="--seed S --cases N --case FAMILY:N"
	@$(PY) -m tests.fuzz $(ARGS)

golden: setup           ## refresh golden files; review the difference before you commit it
	$(PY) tests/golden/refresh.py
