#!/usr/bin/env bash
# Trains in several processes on this machine, and starts them again when one is lost:
#   bash launch/local.sh --processes=2 --gin_file=runs/demo.gin --model_dir=runs/two
#
#   --processes=N         how many; default 1
#   --cpu_devices=D       each on CPU, with D devices of its own
#   --gpus_per_process=G  process 0 gets the first G GPUs, process 1 the next, and so on

# shellcheck source=launch/training.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/training.sh"

processes=1 cpu_devices='' gpus=''
split_flags "$@"
for flag in "${flags[@]}"; do
  case "$flag" in
    --processes=*) processes=$(whole_number "$flag") ;;
    --cpu_devices=*) cpu_devices=$(whole_number "$flag") ;;
    --gpus_per_process=*) gpus=$(whole_number "$flag") ;;
    *) read_training_flag "$flag" ;;
  esac
done
require_training
[[ -z $cpu_devices || -z $gpus ]] ||
  fail "$script: give --cpu_devices or --gpus_per_process, not both."
find_programs
model_dir=$(from_caller "$model_dir")
use_data_dir

training_command
if [[ -n $gpus ]]; then training=(bash "$root/launch/with_gpus.sh" "$gpus" "${training[@]}"); fi
supervise_flags=("--processes=$processes")
supervised
surroundings=("SIMVLM_DATA_DIR=$SIMVLM_DATA_DIR")
if [[ -n $cpu_devices ]]; then
  surroundings+=(JAX_PLATFORMS=cpu)
  surroundings+=("XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$cpu_devices")
fi
run env "${surroundings[@]}" "${supervision[@]}"
