# The commands of CONTRIBUTING.md.
.PHONY: help install test test-fast lint format types docs ci

help:            ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install:         ## install the project, editable, with everything the tests need
	pip install -e '.[dev]'

test:            ## run all tests
	python -m pytest

test-fast:       ## run the tests that are not slow
	python -m pytest -m 'not slow'

lint:            ## check style
	ruff check . && ruff format --check .

format:          ## repair style
	ruff check --fix . && ruff format .

types:           ## check types
	pyright

docs:            ## write the generated tables and docs/api.md
	python scripts/maintain/operator_table.py && python scripts/maintain/results.py table && python scripts/maintain/api_page.py

ci:              ## run everything that CI runs, in a fresh environment
	bash .ci/run
