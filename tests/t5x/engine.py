"""Runs T5X and our own loop as programs, on a tiny network and made-up data."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simvlm_jax.gin_files import gin_root

LENGTHS = "{'image': 1, 'example_seed': 2, 'inputs': 24, 'targets': 24}"
TINY = [
    "BATCH_SIZE = 8",
    "IMAGE_SIZE = (32, 32)",
    "VOCABULARY_SIZE = 256",
    "CHECKPOINT_PERIOD = 2",
    "config.SimVLMConfig.width = 16",
    "config.SimVLMConfig.heads = 4",
    "config.SimVLMConfig.mlp_width = 32",
    "config.SimVLMConfig.encoder_layers = 2",
    "config.SimVLMConfig.decoder_layers = 2",
    "config.SimVLMConfig.conv_layers = (1, 1, 1)",
    "config.SimVLMConfig.conv_width = 4",
]
# Two data replicas, four model partitions.
MESH_2X4 = ["NUM_PARTITIONS = None", "MODEL_PARALLEL_SUBMESH = (1, 4)"]
# Eight data replicas; T5X's own choice on CPU is eight model partitions.
MESH_8X1 = ["NUM_PARTITIONS = None", "MODEL_PARALLEL_SUBMESH = (1, 1)"]
PATIENCE = 300


def command(script, files, bindings):
    line = [sys.executable, "-m", f"t5x.{script}", f"--gin_search_paths={gin_root()}"]
    line += [f"--gin_file={name}" for name in ("runs/demo.gin", *files)]
    return line + [f"--gin_bindings={binding}" for binding in (*TINY, *bindings)]


def environment(data, devices):
    here = Path(__file__).parent
    paths = [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "SIMVLM_DATA_DIR": str(data),
        # Without the second flag the devices may meet in collectives of different order, and wait.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def finish(process):
    """Exit code and output; a process that does not end is killed."""
    try:
        process.wait(timeout=PATIENCE)
    finally:
        process.kill()
    process.output.seek(0)
    return process.returncode, process.output.read()


def start(script, data, files, bindings, devices=1, extra=()):
    output = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
    process = subprocess.Popen(
        command(script, files, bindings) + list(extra),
        env=environment(data, devices),
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    process.output = output
    return process


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_together(data, bindings, processes, devices, files=("t5x/pretrain.gin",)):
    """Starts the processes of one pretraining run; `data` is the folder of all, or one for each."""
    port = free_port()
    folders = data if isinstance(data, list) else [data] * processes
    common = ["--multiprocess_gpu", f"--coordinator_address=127.0.0.1:{port}"]
    common += [f"--process_count={processes}"]
    return [
        start("train", folder, files, bindings, devices, [*common, f"--process_index={index}"])
        for index, folder in enumerate(folders)
    ]


def finish_all(processes):
    """Exit code and output of each; where one does not end, all are killed."""
    try:
        return [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


def t5x(script, data, files, bindings, devices=1):
    """Runs one of T5X's scripts to its end."""
    code, output = finish(start(script, data, files, bindings, devices))
    assert code == 0, output[-4000:]
    return output


def pretrain(data, model_dir, steps, *bindings, files=(), devices=1):
    own = [f"MODEL_DIR = '{model_dir}'", f"TOTAL_STEPS = {steps}"]
    return t5x("train", data, ["t5x/pretrain.gin", *files], own + list(bindings), devices)


def ours(data, model_dir, steps, *bindings, files=(), devices=1):
    """Trains by our own loop on the same configuration."""
    line = [sys.executable, "-m", "simvlm_jax.cli.main", "train", f"--model_dir={model_dir}"]
    line += [f"--gin_file={name}" for name in ("runs/demo.gin", *files)]
    for binding in (*TINY, f"TOTAL_STEPS = {steps}", *bindings):
        line += ["--gin", binding]
    done = subprocess.run(line, env=environment(data, devices), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def terminate_after(process, sign, seconds=PATIENCE):
    """Sends SIGTERM as soon as a condition holds; returns exit code and output."""
    deadline = time.monotonic() + seconds
    while not sign() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    return finish(process)


def logged(model_dir, tag="loss"):
    """T5X's training metric at every step: {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(Path(model_dir) / "train"), size_guidance={"tensors": 0})
    events.Reload()
    return {e.step: float(make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}


def trained(model_dir):
    """The last step that T5X has logged, or 0."""
    if not list((Path(model_dir) / "train").glob("events*")):
        return 0
    try:
        return max(logged(model_dir), default=0)
    except KeyError:  # no loss yet
        return 0


def losses(model_dir):
    """Our loop's training loss at every step: {step: value}."""
    lines = (Path(model_dir) / "losses.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def steps(model_dir):
    found = Path(model_dir).glob("checkpoint_*/state")
    return sorted(int(path.parent.name.removeprefix("checkpoint_")) for path in found)
