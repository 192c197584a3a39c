# shellcheck shell=bash
# What a training is told, the same in every script that starts one; they source it, and by it
# common.sh:
#
#   --gin_file=FILE     of gin/, or a path; may be repeated
#   --gin 'NAME = V'    one gin binding; may be repeated
#   --model_dir=DIR     the run's folder, one that all hosts share; for T5X also gs://BUCKET/...
#   --data_dir=DIR      prepared data; default $SIMVLM_DATA_DIR, or the folder data/ of the project
#   --engine=own|t5x    `simvlm train`, or `python -m t5x.train`; default own
#   --attempts=N        give up after so many starts in a row without a new checkpoint; default 3
#   --dry_run           print every command, and run none
#   -- FLAG...          further flags of the engine

script=$(basename -- "$0")
caller=$PWD # what a person says of files, they say it from here
# shellcheck source=launch/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

engine=own
model_dir=''
data_dir=''
attempts=3
gin_files=()
bindings=()
more=()  # what follows --
flags=() # what a person said, each flag in one word
own_flags=()       # a script's own for `simvlm train`
supervise_flags=() # and for `simvlm supervise`

usage() { # the head of the script, and of this file
  local file
  for file in "$script" training.sh; do
    sed -n '/^# /,/^$/{s/^# \{0,1\}//p}' "$root/launch/$file" | grep -v '^shellcheck'
    printf '\n'
  done
}

split_flags() { # split_flags WORD...: fills `flags` and `more`; `--flag value` becomes --flag=value
  while (($#)); do
    if [[ $1 == --help || $1 == -h ]]; then
      usage
      exit 0
    elif [[ $1 == -- ]]; then
      more=("${@:2}")
      return
    elif [[ $1 == --* && $1 != *=* && $# -gt 1 && $2 != --* ]]; then
      flags+=("$1=$2")
      shift
    else
      flags+=("$1")
    fi
    [[ ${flags[-1]} != *[[:cntrl:]]* ]] ||
      fail "$script got a flag with a line break or another control character: leave it out."
    shift
  done
}

whole_number() { # whole_number FLAG=VALUE: the value, if it is one
  [[ ${1#*=} =~ ^[1-9][0-9]*$ ]] || fail "$script: ${1%%=*} is a whole number from 1 on, not '${1#*=}'."
  printf '%s' "${1#*=}"
}

from_caller() { # from_caller PATH: what was said in the caller's folder, said from anywhere
  case "$1" in
    /* | *://*) printf '%s' "$1" ;;
    *) printf '%s' "$caller/$1" ;;
  esac
}

read_training_flag() { # read_training_flag FLAG: ends the script if it is none
  case "$1" in
    --gin_file=?*) gin_files+=("${1#*=}") ;;
    --gin=?*=*) bindings+=("${1#*=}") ;;
    --gin=*) fail "$script: --gin is 'NAME = VALUE', not '${1#*=}'." ;;
    --model_dir=?*) model_dir=${1#*=} ;;
    --data_dir=?*) data_dir=${1#*=} ;;
    --engine=own | --engine=t5x) engine=${1#*=} ;;
    --engine=*) fail "$script: --engine is own or t5x, not '${1#*=}'." ;;
    --attempts=*) attempts=$(whole_number "$1") ;;
    --dry_run) dry_run=1 ;;
    *) fail "$script knows no flag ${1%%=*}, or it needs a value: $script --help lists them." ;;
  esac
}

require_training() { # what cannot be left out
  ((${#gin_files[@]})) || fail "$script needs --gin_file: runs/demo.gin, or your own."
  [[ -n $model_dir ]] || fail "$script needs --model_dir: the run's folder."
  if [[ $engine == own && $model_dir == *://* ]]; then
    fail "simvlm train writes to folders, not to $model_dir: mount it on every host, or use T5X."
  fi
}

use_data_dir() {
  if [[ -n $data_dir ]]; then SIMVLM_DATA_DIR=$(from_caller "$data_dir"); fi
}

find_programs() { # sets `bin`, the folder of simvlm and its Python
  bin="$root/.venv/bin"
  if [[ -x $bin/simvlm ]] || ((dry_run)); then return; fi
  bin=$(command -v simvlm) ||
    fail "There is no simvlm in $root/.venv or on the PATH: install it as README.md says."
  bin=$(dirname -- "$bin")
}

gin_string() { # gin_string TEXT: as a gin value
  local text=${1//\\/\\\\}
  printf "'%s'" "${text//\'/\\\'}"
}

gin_path() { # gin_path FILE: the caller's file, else the project's
  local file
  file=$(from_caller "$1")
  if [[ ! -f $file && -f $root/gin/$1 ]]; then file="$root/gin/$1"; fi
  [[ -f $file ]] || fail "There is no gin file $1, neither in $caller nor in $root/gin."
  printf '%s' "$file"
}

training_command() { # fills `training`: what one process of it runs
  local file path binding name value
  local paths=()
  for file in "${gin_files[@]}"; do
    path=$(gin_path "$file") || exit 2
    if [[ $engine == own ]]; then path=${path#"$root/gin/"}; fi
    paths+=("--gin_file=$path")
  done
  if [[ $engine == own ]]; then
    training=("$bin/simvlm" train "${paths[@]}")
    for binding in "${bindings[@]}"; do training+=("--gin=$binding"); done
    training+=("--model_dir=$model_dir" "${own_flags[@]}" "${more[@]}")
    return
  fi
  # T5X's flag is named after GPUs, but lets any processes meet; without an address it asks JAX.
  training=("$bin/python" -m t5x.train --multiprocess_gpu "--gin_search_paths=$root/gin" "${paths[@]}")
  if [[ ${paths[*]} != *"/t5x/"* ]]; then training+=("--gin_file=$root/gin/t5x/pretrain.gin"); fi
  training+=("--gin.MODEL_DIR=$(gin_string "$model_dir")")
  for binding in "${bindings[@]}"; do
    name=${binding%%=*} value=${binding#*=}
    training+=("--gin.${name// /}=${value#"${value%%[! ]*}"}")
  done
  training+=("${more[@]}")
}

supervised() { # fills `supervision`: `training`, and what keeps it going
  supervision=("$bin/simvlm" supervise "--model_dir=$model_dir" "--attempts=$attempts")
  supervision+=("${supervise_flags[@]}" -- "${training[@]}")
}
