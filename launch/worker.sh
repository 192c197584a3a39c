#!/usr/bin/env bash
# One host of a TPU slice; launch/tpu.sh calls it on all of them:
#   bash launch/worker.sh setup|start|status|logs|stop [--flag=value ...]

# shellcheck source=launch/training.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

verb=${1:-}
shift || true
state="$root/runs/launch"
log="$state/log"
prepare=''
split_flags "$@"
for flag in "${flags[@]}"; do
  case "$flag" in
    --prepare=?*) prepare=${flag#*=} ;;
    *) read_training_flag "$flag" ;;
  esac
done

find_python() { # Ubuntu 22.04, which TPU VMs have, brings 3.10
  local name
  if [[ -n ${SIMVLM_PYTHON:-} ]]; then return; fi
  for name in python3.13 python3.12 python3.11; do
    base_python=$name
    if command -v "$name" >/dev/null && "$name" -c 'import ensurepip' 2>/dev/null; then return; fi
  done
  run sudo apt-get -qq update
  run sudo apt-get -qq -y install python3.11 python3.11-venv
}

install_t5x() { # as docs/t5x.md says why
  local name
  for name in google-research/t5x@cc342d4 google/airio google-research/jestimator; do
    run "$python" -m pip install --quiet --no-deps "git+https://github.com/$name"
  done
  run "$python" -m pip install --quiet --no-deps cached-property==2.0.1 fiddle==0.3.1 grain==0.2.18 \
    portpicker==1.6.0 libcst==1.9.0 cloudpickle==3.1.2
}

setup() {
  find_python
  make_environment
  run "$python" -m pip install --quiet -c requirements.lock -e '.[tpu,gcs]'
  if [[ $engine == t5x ]]; then install_t5x; fi
  if [[ -n $prepare ]]; then run bash -c "$prepare"; fi
}

is_running() { # whoever runs the training holds the lock, and no reboot leaves it behind
  mkdir -p -- "$state"
  ! flock --nonblock "$state/lock" true
}

start() { # goes on after ssh has ended; a second start changes nothing
  if ((!dry_run)) && is_running; then
    printf 'simvlm: running\n'
    return
  fi
  require_training
  find_programs
  use_data_dir
  own_flags=(--distributed)
  training_command
  supervised
  if ((dry_run)); then
    run "${supervision[@]}"
    return
  fi
  rm -f -- "$state/code" "$state/stopped"
  keep >>"$log" 2>&1 </dev/null &
  disown
  printf 'simvlm: started; its log is %s\n' "$log"
}

keep() { # in the background: runs the training to its end, and notes how that was
  trap '' HUP
  exec 9>"$state/lock"
  flock --timeout 10 9 || exit 0 # `status` holds it for a moment
  trap 'pass_on TERM 143' TERM
  trap 'printf "%s" "$?" >"$state/code"' EXIT
  printf '%s' "$BASHPID" >"$state/pid"
  run "${supervision[@]}"
}

last_line() {
  tail -n 1 "$log" 2>/dev/null | cut -c 1-200
}

status() {
  local code
  code=$(cat "$state/code" 2>/dev/null || true)
  if is_running; then
    printf 'simvlm: running; %s\n' "$(last_line)"
  elif [[ -f $state/stopped ]]; then
    printf 'simvlm: stopped\n'
  elif [[ $code == 0 ]]; then
    printf 'simvlm: finished\n'
  elif [[ -z $code || $code == 143 ]]; then # the host was restarted, or is new
    printf 'simvlm: not running\n'
  else
    printf 'simvlm: failed with code %s; %s\n' "$code" "$(last_line)"
  fi
}

stop() { # SIGTERM: the run saves and ends
  is_running || return 0
  touch "$state/stopped"
  run kill -TERM "$(cat "$state/pid")"
  while is_running; do pause 1; done
}

case "$verb" in
  setup | start | status | stop) "$verb" ;;
  logs) run tail -n 50 "$log" ;;
  *) fail "worker.sh knows no verb '$verb': setup, start, status, logs, stop." ;;
esac
