#!/usr/bin/env bash
# Trains on Cloud TPU, in one slice or several, by queued resources. All of it in one command:
#   bash launch/tpu.sh up --name=simvlm --zone=us-west4-a --topology=v5e:16x16 \
#     --gin_file=models/huge.gin --gin_file=runs/paper.gin --model_dir=/mnt/runs/huge \
#     --prepare="$MOUNT"
#
#   up      create, wait, setup, start
#   watch   up, and again whenever the machine is taken back, until the run is finished
#   create  asks for the machine                       wait    until it is there
#   setup   installs one commit on all hosts           start   starts the run on all hosts
#   status  a line of every host                       logs    the last lines of a host's log
#   stop    the run saves and ends                     delete  gives the machine back
#
#   --name=NAME, --zone=ZONE, [--project=PROJECT]   of the queued resource
#   --topology=KIND:SHAPE    in chips: v5e:16x16, v6e:8x8, v4:4x4x8, v5p:4x4x4, v3:8x8, v2:4x4
#   --slices=N               slices of that shape, joined by the data center's network; default 1
#   --spot                   cheaper, and may be taken back at any time: then use watch
#   --runtime_version=V      of the TPU VM; default by the kind
#   --create_flag=FLAG       one more for gcloud's create (--reserved, --network=...); repeatable
#   --repository=URL         the hosts clone it; default: a copy of this clone is sent to them
#   --commit=COMMIT          what they check out; default HEAD
#   --prepare=COMMAND        run on every host after the installation, and after it was restarted:
#                            mounts what they share, such as the run's folder and the data
#   --worker=W               whose log, a number or all; default 0
#   --poll_seconds=S         between two looks; default 60
#   --delete_at_end          `watch` gives the machine back when the run is finished

# shellcheck source=launch/tpu_machine.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/tpu_machine.sh"

repository='' commit='' prepare='' worker=0 delete_at_end=0

read_flags() {
  local flag
  for flag in "${flags[@]}"; do
    case "$flag" in
      --repository=?*) repository=${flag#*=} ;;
      --commit=?*) commit=${flag#*=} ;;
      --prepare=?*) prepare=${flag#*=} ;;
      --worker=?*) worker=${flag#*=} ;;
      --delete_at_end) delete_at_end=1 ;;
      *) read_machine_flag "$flag" ;;
    esac
  done
  require_machine
}

require_commit() { # sets `commit`, and sees to it that the hosts can have what it names
  local file given=$commit
  commit=$(git rev-parse --verify --quiet "${given:-HEAD}^{commit}") ||
    fail "$script finds no commit '${given:-HEAD}' in $root: fetch it, or give another --commit."
  if [[ -z $given && -n $(git status --porcelain --untracked-files=no) ]]; then
    fail "$script installs commits, and $root has changes that are in none: commit them first."
  fi
  if [[ -z $repository ]] && ! git merge-base --is-ancestor "$commit" HEAD; then
    fail "The commit $commit is not in what is checked out: check it out, or give --repository."
  fi
  for file in "${gin_files[@]}"; do
    git cat-file -e "$commit:gin/$file" 2>/dev/null ||
      fail "The commit has no gin/$file: hosts get only what is committed in gin/."
  done
}

send_history() { # without a repository that the hosts could clone
  local bundle
  bundle=$(git rev-parse --absolute-git-dir)/simvlm.bundle
  attempt git bundle create --quiet "$bundle" HEAD
  ((!status)) || return 0
  attempt gcloud compute tpus queued-resources scp "$bundle" "$name:simvlm.bundle" \
    "${where[@]:1}" --node=all --worker=all --batch-size=all
}

setup() { # leaves in `status` whether it went well
  local source=${repository:-../simvlm.bundle} words=("--engine=$engine") command
  if [[ -z $repository ]]; then send_history; fi
  ((!status)) || return 0
  if [[ -n $prepare ]]; then words+=("--prepare=$prepare"); fi
  command="git init --quiet simvlm_jax && git -C simvlm_jax fetch --quiet $(quoted "$source" HEAD)"
  command+=" $(quoted '+refs/heads/*:refs/remotes/source/*')"
  command+=" && git -C simvlm_jax checkout --quiet --force --detach $commit"
  on_hosts "$command && $(quoted bash simvlm_jax/launch/worker.sh setup "${words[@]}")"
}

start() { # likewise; on hosts that train already it changes nothing
  local words=("--engine=$engine" "--model_dir=$model_dir" "--attempts=$attempts") word
  for word in "${gin_files[@]}"; do words+=("--gin_file=$word"); done
  for word in "${bindings[@]}"; do words+=("--gin=$word"); done
  if [[ -n $data_dir ]]; then words+=("--data_dir=$data_dir"); fi
  if ((${#more[@]})); then words+=(-- "${more[@]}"); fi
  on_hosts "$(quoted bash simvlm_jax/launch/worker.sh start "${words[@]}")"
}

require_run() {
  require_training
  case "$model_dir" in
    gs://* | /*) ;;
    *) fail "$script needs a --model_dir that all hosts share, a mounted /folder or T5X's gs://...,\
 not '$model_dir'." ;;
  esac
}

up() {
  look NONE
  case "$now" in
    NONE) create ;;
    UNKNOWN) fail "Google Cloud did not tell the state of $name: see above, and try again." ;;
  esac
  wait_for_machine
  setup
  end_if_failed
  start
  end_if_failed
}

see_to_the_run() { # does what the hosts need; returns 1 when the run is finished
  local answers
  answers=$(ask_hosts) || return 0 # on the way to be taken back, perhaps
  case "$answers" in
    *'simvlm: failed'*)
      printf 'The run ended, and %s stays for you to look: %s\n' "$name" \
        "$(grep -m 1 failed <<<"$answers")" >&2
      exit 1
      ;;
    *'simvlm: stopped'*)
      printf 'The run was stopped; %s start goes on.\n' "$script"
      exit 0
      ;;
    *'not set up'* | *'not running'*) set_up ;; # on hosts that train it changes nothing
    *'simvlm: running'*) failures=0 ;;
    *) return 1 ;;
  esac
  if ((stopped)); then exit "$stopped"; fi
}

set_up() { # a machine may be taken back meanwhile; but what fails every time will not mend itself
  setup
  if ((!status)); then start; fi
  if ((status)); then count_failure "could not be set up"; fi
}

count_failure() { # count_failure WHAT
  failures=$((failures + 1))
  if ((failures >= attempts)); then
    printf '%s %s, %d times in a row: see above, mend it, and watch again.\n' \
      "$name" "$1" "$failures" >&2
    exit 1
  fi
}

watch() {
  failures=0
  if ((dry_run)); then
    up
    run_on_hosts status
    delete
    return
  fi
  while true; do
    look
    case "$now" in
      NONE) create ;;
      SUSPENDED) delete ;; # taken back: the next look makes it anew
      FAILED)
        count_failure "could not be had"
        delete
        ;;
      ACTIVE) see_to_the_run || break ;;
    esac
    pause "$poll_seconds"
  done
  printf 'The run is finished.\n'
  if ((delete_at_end)); then delete; else printf 'Give the machine back: %s delete.\n' "$script"; fi
}

verb=${1:-}
shift || true
case "$verb" in
  up | watch | create | wait | setup | start | status | logs | stop | delete) ;;
  -h | --help) split_flags --help ;;
  *) fail "$script knows no verb '$verb', only up, watch, create, wait, setup, start, status, logs,\
 stop and delete." ;;
esac
split_flags "$@"
read_flags
case "$verb" in up | watch | create) machine_flags ;; esac
case "$verb" in up | watch | start) require_run ;; esac
case "$verb" in up | watch | setup) require_commit ;; esac
case "$verb" in
  wait) wait_for_machine ;;
  setup | start)
    "$verb"
    end_if_failed
    ;;
  status | stop) run_on_hosts "$verb" ;;
  logs)
    run gcloud compute tpus queued-resources ssh "${where[@]}" --node=0 "--worker=$worker" \
      "--command=bash simvlm_jax/launch/worker.sh logs"
    ;;
  *) "$verb" ;;
esac
