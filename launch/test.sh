#!/usr/bin/env bash
# Makes the environment and checks everything: bash launch/test.sh [--dry_run] [PYTEST ARGUMENTS]
# shellcheck source=launch/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == --dry_run ]]; then
  dry_run=1
  shift
fi

begin_stage environment
make_environment
begin_stage style
run "$python" -m ruff check .
begin_stage tests
run "$python" -m pytest -n 2 "$@"
