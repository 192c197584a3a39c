# shellcheck shell=bash
# The machine of tpu.sh: its flags, and what is asked of Google Cloud; sourced by tpu.sh alone.

# shellcheck source=launch/training.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

name='' zone='' project='' topology='' slices=1 spot=0 runtime='' create_flags=() poll_seconds=60

read_machine_flag() { # read_machine_flag FLAG: ends the script if it is none, nor one of a training
  case "$1" in
    --name=?*) name=${1#*=} ;;
    --zone=?*) zone=${1#*=} ;;
    --project=?*) project=${1#*=} ;;
    --topology=?*) topology=${1#*=} ;;
    --slices=*) slices=$(whole_number "$1") ;;
    --spot) spot=1 ;;
    --runtime_version=?*) runtime=${1#*=} ;;
    --create_flag=--?*) create_flags+=("${1#*=}") ;;
    --poll_seconds=*) poll_seconds=$(whole_number "$1") ;;
    *) read_training_flag "$1" ;;
  esac
}

require_machine() { # fills `where`
  [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
    fail "$script needs --name: lower-case letters, digits and hyphens, not '$name'."
  [[ -n $zone ]] || fail "$script needs --zone, such as us-west4-a."
  where=("$name" "--zone=$zone" --quiet)
  if [[ -n $project ]]; then where+=("--project=$project"); fi
}

machine_flags() { # fills `machine`, as gcloud calls the topology
  local kind=${topology%%:*} shape=${topology#*:} dimensions=2 chips version='' crosses=xx
  machine=()
  case "$kind" in
    v5e) version=v2-alpha-tpuv5-lite ;;
    v6e) version=v2-alpha-tpuv6e ;;
    v2 | v3) version=tpu-ubuntu2204-base ;;
    v4) version=tpu-ubuntu2204-base dimensions=3 ;;
    v5p) version=v2-alpha-tpuv5 dimensions=3 ;;
  esac
  if [[ -z $version || ! $shape =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    [[ ${shape//[0-9]/} != "${crosses:0:dimensions-1}" ]]; then
    fail "$script needs --topology as KIND:SHAPE in chips (v5e:16x16, v4:4x4x8), not '$topology'."
  fi
  chips=$((${shape//x/*}))
  case "$kind" in # Google's names count chips for some kinds, and cores for others
    v5e) machine=("--accelerator-type=v5litepod-$chips") ;;
    v6e) machine=("--accelerator-type=v6e-$chips") ;;
    v4) machine=(--type=v4 "--topology=$shape") ;;
    *) machine=("--accelerator-type=$kind-$((2 * chips))") ;;
  esac
  machine+=("--runtime-version=${runtime:-$version}")
}

create() {
  local flags=()
  machine_flags
  if ((slices > 1)); then
    flags=("--node-count=$slices" "--node-prefix=$name")
  else
    flags=("--node-id=$name")
  fi
  if ((spot)); then flags+=(--spot); fi
  run gcloud compute tpus queued-resources create "${where[@]}" "${machine[@]}" "${flags[@]}" \
    "${create_flags[@]}"
}

state() { # prints the state of the queued resource, NONE, or UNKNOWN if Google cannot be reached
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "${where[@]}" \
    '--format=value(state.state)' 2>&1); then
    tail -n 1 <<<"$answer"
  elif [[ $answer == *NOT_FOUND* ]]; then
    printf 'NONE\n'
  else
    printf '%s\n' "$answer" | tail -n 1 >&2
    printf 'UNKNOWN\n'
  fi
}

look() { # sets `now` to the state, and tells it when it has changed
  if ((dry_run)); then
    attempt gcloud compute tpus queued-resources describe "${where[@]}" '--format=value(state.state)'
    now=${1:-ACTIVE}
    return
  fi
  now=$(state)
  if [[ $now != "${before:-}" ]]; then printf '%s is %s\n' "$name" "$now"; fi
  before=$now
}

wait_for_machine() {
  while true; do
    look
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDED | NONE)
        printf '%s is %s and will not come: %s delete, then create it again.\n' \
          "$name" "$now" "$script" >&2
        exit 1
        ;;
    esac
    pause "$poll_seconds"
  done
}

on_hosts() { # on_hosts COMMAND: on all of them at once; leaves its exit code in `status`
  attempt gcloud compute tpus queued-resources ssh "${where[@]}" --node=all --worker=all \
    --batch-size=all "--command=$1"
}

run_on_hosts() { # run_on_hosts VERB: of worker.sh; ends the script where it fails
  on_hosts "bash simvlm_jax/launch/worker.sh $1"
  end_if_failed
}

ask_hosts() { # prints a line of every host; fails if they cannot be reached
  gcloud compute tpus queued-resources ssh "${where[@]}" --node=all --worker=all --batch-size=all \
    "--command=bash simvlm_jax/launch/worker.sh status 2>/dev/null || echo 'simvlm: not set up'" |
    grep '^simvlm: '
}

end_if_failed() {
  if ((stopped)); then exit "$stopped"; fi
  if ((status)); then exit "$status"; fi
}

delete() {
  run gcloud compute tpus queued-resources delete "${where[@]}" --force
}
