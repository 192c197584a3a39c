#!/usr/bin/env bash
# Trains on GPUs under SLURM, one process a node, and goes on after preemption or the time limit:
#   bash launch/slurm.sh --nodes=4 --gpus_per_node=8 --gin_file=models/base.gin \
#     --gin_file=runs/paper.gin --model_dir=/shared/runs/base
#
#   --nodes=N, --gpus_per_node=G   of the job
#   --cpus_per_node=C              for the data; default what the cluster gives
#   --save_seconds=S               SIGTERM comes so long before the time limit; default 120
#   --sbatch_flag=FLAG             one more for sbatch (--time=12:00:00, --partition=...); repeatable
#   --in_job                       the script's own: it is inside the job

# shellcheck source=launch/training.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

nodes='' gpus='' cpus='' save_seconds=120 sbatch_flags=() in_job=0
split_flags "$@"
for flag in "${flags[@]}"; do
  case "$flag" in
    --nodes=*) nodes=$(whole_number "$flag") ;;
    --gpus_per_node=*) gpus=$(whole_number "$flag") ;;
    --cpus_per_node=*) cpus=$(whole_number "$flag") ;;
    --save_seconds=*) save_seconds=$(whole_number "$flag") ;;
    --sbatch_flag=-?*) sbatch_flags+=("${flag#*=}") ;;
    --in_job) in_job=1 ;;
    *) read_training_flag "$flag" ;;
  esac
done
require_training
[[ -n $nodes && -n $gpus ]] || fail "$script needs --nodes and --gpus_per_node."
find_programs
model_dir=$(from_caller "$model_dir")
use_data_dir

submit() { # the job calls this script again, which the cluster must see under the same path
  local file path words=(--in_job "--nodes=$nodes" "--gpus_per_node=$gpus") job=()
  words+=("--engine=$engine" "--model_dir=$model_dir" "--attempts=$attempts")
  words+=("--data_dir=$SIMVLM_DATA_DIR")
  for file in "${gin_files[@]}"; do
    path=$(gin_path "$file") || exit 2
    words+=("--gin_file=$path")
  done
  for file in "${bindings[@]}"; do words+=("--gin=$file"); done
  if [[ -n $cpus ]]; then
    words+=("--cpus_per_node=$cpus")
    job+=("--cpus-per-task=$cpus")
  fi
  if ((${#more[@]})); then words+=(-- "${more[@]}"); fi
  ((dry_run)) || mkdir -p runs # where the log goes
  run sbatch --job-name=simvlm "--nodes=$nodes" --ntasks-per-node=1 "--gpus-per-node=$gpus" \
    --exclusive --requeue "--signal=B:TERM@$save_seconds" --open-mode=append \
    "--output=$root/runs/slurm-%j.log" "${job[@]}" "${sbatch_flags[@]}" \
    "--wrap=exec $(quoted bash "$root/launch/slurm.sh" "${words[@]}")"
}

train() { # inside the job: a task on every node; SIGTERM to this script reaches them by srun
  local step=(srun "--ntasks=$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1) devices
  if [[ -n $cpus ]]; then step+=("--cpus-per-task=$cpus"); fi
  devices=$(seq -s, 0 $((gpus - 1))) # or JAX takes the first GPU alone, as if each had a process
  own_flags=(--distributed)
  training_command
  supervised
  attempt "${step[@]}" env "SIMVLM_DATA_DIR=$SIMVLM_DATA_DIR" "JAX_LOCAL_DEVICE_IDS=$devices" \
    "${supervision[@]}"
  go_on_later "$status"
}

go_on_later() { # go_on_later CODE: queues the job again if it ended before the run did
  if ((!stopped)) && { (($1 || dry_run)) || ! is_open; }; then exit "$1"; fi
  # A job that was cancelled stays so, and one that was preempted is queued by SLURM itself.
  if [[ $(squeue --noheader --format=%T "--jobs=$SLURM_JOB_ID") == RUNNING ]]; then
    stopped=0
    run scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$1"
}

is_open() { # whether the run says of itself that it is not finished; T5X's says nothing
  "$bin/python" - "$model_dir" <<'PYTHON'
import sys
from simvlm_jax import supervisor
sys.exit(supervisor.open_end(sys.argv[1]) is None)
PYTHON
}

if ((in_job)); then train; else submit; fi
