#!/usr/bin/env bash
# Pretrains a small SimVLM on drawings and reports what it learned: bash launch/demo.sh [--dry_run]
# A second run keeps what is there; after an interruption the same command goes on.
# shellcheck source=launch/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

for argument in "$@"; do
  case "$argument" in
    --dry_run) dry_run=1 ;;
    *) fail "demo.sh knows no argument $argument, only --dry_run." ;;
  esac
done

model_dir=runs/demo
stages_file="$root/$model_dir/stages.tsv"
simvlm="$root/.venv/bin/simvlm"

begin_stage environment
make_environment
finish_stage
begin_stage prepare
run "$simvlm" prepare openmoji
finish_stage
begin_stage pretraining
run "$simvlm" train --gin_file=runs/demo.gin --model_dir="$model_dir"
finish_stage
begin_stage translation
run "$simvlm" train --gin_file=runs/demo_translation.gin --model_dir="$model_dir/translation"
finish_stage
begin_stage evaluation
run "$simvlm" evaluate --gin_file=runs/demo_evaluate.gin --model_dir="$model_dir"
finish_stage

((dry_run)) || printf 'Numbers: %s\nReport:  %s\n' \
  "$root/$model_dir/metrics.json" "$root/$model_dir/report/index.html"
