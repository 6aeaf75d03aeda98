# `make quickstart` and `make test` need a Python 3.11, 3.12 or 3.13 and a network to PyPI, nothing else.

VENV := .venv
RUN := $(VENV)/bin/python
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c "$(FITS)" 2>/dev/null && echo $$p && break; done)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: quickstart test lint

DOORS := runs/answers/doors.txt
DRAW := vae --signature sample --count 16 --out runs/answers

# Train a variational autoencoder on digits, write figures and pictures, export it, ask the export for an answer; then
# start a server at free ports, ask it over REST and gRPC, and stop it.
quickstart: $(VENV)/installed
	$(RUN) -m training.vae
	$(VENV)/bin/dmkeras show saved_models/vae
	$(VENV)/bin/dmkeras predict saved_models $(DRAW) | cut -c 1-120
	@rm -f $(DOORS)
	$(VENV)/bin/dmkeras serve saved_models --rest-port auto --grpc-port auto > $(DOORS) & server=$$!; \
	trap 'kill $$server; wait $$server' EXIT; \
	until grep -qs '://' $(DOORS); do kill -0 $$server || exit 2; sleep 0.2; done; \
	for url in $$(grep -o '[a-z]*://[^ ]*' $(DOORS)); do \
		echo "dmkeras predict $$url $(DRAW)"; \
		$(VENV)/bin/dmkeras predict $$url $(DRAW) > runs/answers/answer.json || exit 2; \
		cut -c 1-120 runs/answers/answer.json; \
	done

test: $(VENV)/installed
	$(RUN) -m pytest -q -n auto --dist loadscope

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/installed: setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with venv and ensurepip was found." \
		"Install one (on Debian: apt install python3-venv), or name it: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
