# shellcheck shell=bash
# What the scripts of this folder share; they source it. It finds the project, makes the virtual
# environment, tells each command before it runs it, and notes how long each stage takes. What a
# training is told, the same in every script, is read in training.sh.
#
#   SIMVLM_PYTHON    the Python (3.11 or newer) that makes the environment; default python3
#   SIMVLM_DATA_DIR  where prepared data lies; default the folder data/ of the project

set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
base_python="${SIMVLM_PYTHON:-python3}"
python="$root/.venv/bin/python"
dry_run=0      # 1: print the commands only
stages_file='' # where seconds are noted, if anywhere
stage=''       # the stage under way
child=''       # the command under way
stopped=0      # the exit code that a signal asked for
status=0       # the exit code of the command before

case "${SIMVLM_DATA_DIR:=$root/data}" in
  /*) ;;
  *) SIMVLM_DATA_DIR="$PWD/$SIMVLM_DATA_DIR" ;; # said in the caller's folder, used in ours
esac
export SIMVLM_DATA_DIR
export PIP_DISABLE_PIP_VERSION_CHECK=1
cd -- "$root"

fail() { # fail SENTENCE
  printf '%s\n' "$1" >&2
  exit 2
}

# A command runs in a process group of its own, and signals are passed on to it: so Ctrl-C reaches it
# once, and a signal sent to this script alone does not leave it behind.
pause() { # pause SECONDS: a signal ends it, and the script
  if ((dry_run)); then return; fi
  sleep "$1" &
  child=$!
  wait "$child" || true
  child=''
  if ((stopped)); then exit "$stopped"; fi
}

pass_on() { # pass_on SIGNAL EXIT_CODE
  stopped=$2
  if [[ -n $child ]]; then kill -s "$1" "$child" 2>/dev/null || true; else exit "$2"; fi
}
trap 'pass_on INT 130' INT
trap 'pass_on TERM 143' TERM
trap 'pass_on HUP 129' HUP
trap 'finish_stage' EXIT

quoted() { # quoted WORD...: as a POSIX shell reads them again
  local word words=()
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    words+=("$word")
  done
  printf '%s' "${words[*]}"
}

attempt() { # attempt COMMAND...: prints it, runs it, and leaves its exit code in `status`
  status=0
  printf '+ %s\n' "$(quoted "$@")"
  if ((dry_run)); then return; fi
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  while true; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # else it was a signal to us that ended the wait
  done
  child=''
}

run() { # run COMMAND...: likewise, and ends the script where it fails
  attempt "$@"
  if ((stopped)); then
    printf 'Stopped. The same command goes on from here.\n' >&2
    exit "$stopped"
  fi
  if ((status)); then exit "$status"; fi
}

microseconds() { # microseconds since 1970; the decimal sign depends on the locale
  printf '%s' "${EPOCHREALTIME/[.,]/}"
}

begin_stage() { # begin_stage NAME
  stage=$1
  stage_began=$(microseconds)
  printf '== %s\n' "$stage"
}

finish_stage() { # notes the seconds of the stage under way; also called on the way out
  local name=$stage milliseconds
  stage=''
  if [[ -z $name || -z $stages_file ]] || ((dry_run)); then return; fi
  milliseconds=$((($(microseconds) - stage_began) / 1000))
  mkdir -p -- "$(dirname -- "$stages_file")"
  printf '%s\t%d.%03d\n' "$name" $((milliseconds / 1000)) $((milliseconds % 1000)) >>"$stages_file"
}

check_python() { # ends the script, with a sentence, unless the Python can make environments
  command -v "$base_python" >/dev/null ||
    fail "There is no $base_python: install Python 3.11 or newer, or set SIMVLM_PYTHON."
  "$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$base_python is older than Python 3.11: set SIMVLM_PYTHON to a newer one."
  "$base_python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$base_python cannot make virtual environments: apt-get install python3-venv"
}

environment_digest() { # what an environment is made of: where, from which Python, with what
  "$base_python" - "$root" requirements.lock setup.py <<'PYTHON'
import hashlib, pathlib, sys

digest = hashlib.sha256(repr((sys.argv[1], sys.version, sys.base_prefix)).encode())
for name in sys.argv[2:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PYTHON
}

make_environment() { # makes .venv anew, unless it is whole and nothing that it is made of changed
  local digest='' stamp=.venv/made-of
  if ((!dry_run)); then
    check_python
    digest=$(environment_digest)
    if [[ $(cat "$stamp" 2>/dev/null) == "$digest" ]]; then
      printf 'The environment in .venv is up to date.\n'
      return
    fi
  fi
  run "$base_python" -m venv --clear .venv
  printf 'Installing takes some minutes, and 3 GB of disk.\n'
  run "$python" -m pip install --quiet --no-compile -r requirements.lock
  run "$python" -m pip install --quiet --no-deps --no-build-isolation -e .
  ((dry_run)) || printf '%s' "$digest" >"$stamp"
}
