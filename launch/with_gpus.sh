#!/usr/bin/env bash
# Shows one process of several its share of the GPUs: with_gpus.sh G COMMAND... --process_index=I
set -euo pipefail

share=$1
index=${*: -1}
first=$((share * ${index#--process_index=}))
CUDA_VISIBLE_DEVICES=$(seq -s, "$first" $((first + share - 1)))
export CUDA_VISIBLE_DEVICES
exec "${@:2}"
