#!/bin/sh
# Passes the tests, all but the slow ones.
set -- '.[dev]'
. "$(dirname "$0")/environment.sh"
.venv/bin/python -m pytest -q -n auto -m 'not slow'
