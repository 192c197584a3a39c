"""Training, evaluation and captioning on 1, 2 and 4 real processes, through the verbs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cli.test_verbs import SMALL, bindings
from simvlm_jax.data.testing_records import make_data
from simvlm_jax.training.reading import restore_params, saved_steps

SCRIPT = Path(__file__).with_name("verbs_process.py")
STEPS, DEVICES, PATIENCE = 4, 4, 400
RUN = [line for line in SMALL if "TOTAL_STEPS" not in line and "BATCH_SIZE" not in line]
RUN += [f"TOTAL_STEPS = {STEPS}", "BATCH_SIZE = 4", "CHECKPOINT_PERIOD = 2"]
RUN += ["loop.train.log_every = 1"]
TRAIN = ["train", "--gin_file=runs/demo.gin", *bindings(*RUN)]
EVALUATE = ["evaluate", "--gin_file=runs/demo_captions.gin"]
EVALUATE += bindings("evaluations.TaskEvaluation.batch_size = 12")


def start(count, commands, each=None):
    """Starts processes that meet; `each` adds to the commands of some of them, by number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # in a hurry: nothing here runs for long
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}",
    }
    flags = [f"--coordinator_address=127.0.0.1:{port}", f"--process_count={count}"]
    flags += ["--heartbeat_seconds=10"]
    return [
        subprocess.Popen(
            [
                sys.executable,
                str(SCRIPT),
                json.dumps([[*command, *(each or {}).get(index, [])] for command in commands]),
                *(flags + [f"--process_index={index}"] if count > 1 else []),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes, patience=PATIENCE):
    """Exit codes and what was said, in order."""
    try:
        said = [process.communicate(timeout=patience)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "2.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def runs(made_data, pictures, tmp_path_factory):
    """{processes: (folder, what the first one said, what the others said)}."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for count in (1, 2, 4):
        folder = root / str(count)
        where = [f"--model_dir={folder}"]
        commands = [
            [*TRAIN, *where, f"--data_dir={made_data}"],
            [*EVALUATE, *where, f"--data_dir={made_data}"],
            ["caption", *where, str(pictures), f"--output={folder}/captions", "--batch_size=3"],
        ]
        codes, said = finish(start(count, commands))
        assert codes == [1] * count, said  # one of the pictures is none
        found[count] = folder, said[0], said[1:]
    return found


def losses(folder):
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return lines


@pytest.mark.parametrize("count", [2, 4])
def test_losses_and_parameters_are_those_of_one_process(runs, count):
    one, several = runs[1][0], runs[count][0]
    for left, right in zip(losses(one), losses(several), strict=True):
        assert right == pytest.approx(left, rel=1e-5)
    assert saved_steps(several / "checkpoints") == [2, 4]
    right = jax.tree.leaves(restore_params(several))
    for (path, left), found in zip(
        jax.tree.leaves_with_path(restore_params(one)), right, strict=True
    ):
        # Attention does not depend on its keys' bias: its gradient is noise, which AdamW scales up.
        if "key" not in jax.tree_util.keystr(path):
            assert np.linalg.norm(found - left) < 1e-3 * np.linalg.norm(left), path


@pytest.mark.parametrize("count", [2, 4])
def test_metrics_are_those_of_one_process_where_the_last_batch_is_ragged(runs, count):
    one, several = (json.loads((runs[n][0] / "metrics.json").read_text()) for n in (1, count))
    for section in ("variants", "concepts"):
        texts = {name for name, value in one[section].items() if isinstance(value, str)}
        left, right = (
            {name: value for name, value in found[section].items() if name not in texts}
            for found in (one, several)
        )
        assert right == pytest.approx(left, rel=1e-5)
        assert texts <= set(several[section])
    assert one["variants"]["examples"] % 12 or one["concepts"]["examples"] % 12


@pytest.mark.parametrize("count", [2, 4])
def test_captions_are_those_of_one_process(runs, pictures, count):
    one, several = (
        [json.loads(line) for line in (runs[n][0] / "captions").read_text().splitlines()]
        for n in (1, count)
    )
    assert [Path(line["image"]).stem for line in several] == ["0", "1", "3", "4"]
    for left, right in zip(one, several, strict=True):
        assert right == left | {"score": pytest.approx(left["score"], rel=1e-3)}


@pytest.mark.parametrize("count", [2, 4])
def test_the_first_process_tells_and_the_others_are_silent(runs, count):
    _, first, others = runs[count]
    assert f"all {count} processes have the same code" in first
    assert f"{count} processes on {socket.gethostname()}, {DEVICES} devices (cpu)" in first
    assert f"4 groups a batch: {4 // count} read by a process, 1 on a device" in first
    assert f"step {STEPS}/{STEPS}" in first and "2.png" in first
    for said in others:
        assert not any(word in said for word in ("step", "process", "2.png", "evaluating"))


def test_what_differs_on_one_process_is_named_before_anything_is_trained(made_data, tmp_path):
    other = make_data(tmp_path / "data")
    train, *_ = sorted((other / "openmoji").glob("train-*"))
    shutil.copy(next((other / "openmoji").glob("variants-*")), train)
    command = [*TRAIN, f"--model_dir={tmp_path / 'run'}"]
    data = {index: [f"--data_dir={folder}"] for index, folder in enumerate((made_data, other))}
    codes, said = finish(start(2, [command], data))
    assert codes == [2, 2], said
    for text in said:
        assert f"Process 1 on {socket.gethostname()} differs from most in the data of" in text
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_start_without_a_shard(made_data, tmp_path):
    """One that runs goes on: it has the file open. What reads anew is tested with the sources."""
    data, folder = shutil.copytree(made_data, tmp_path / "data"), tmp_path / "run"
    forever = bindings("TOTAL_STEPS = 1000000", "loop.train.log_every = 100")
    command = [*TRAIN, *forever, f"--model_dir={folder}", f"--data_dir={data}"]
    processes = start(2, [command])
    try:
        wait_for_checkpoint(folder, 2)
        vanishing = next((data / "openmoji").glob("train-00001-*"))
        vanishing.unlink()
        wait_for_checkpoint(folder, saved_steps(folder / "checkpoints")[-1] + 1)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    codes, said = finish(start(2, [command]), patience=60)
    assert codes == [2, 2], said
    assert all("should have 2 shards and has" in text.splitlines()[-1] for text in said)
    assert restore_params(folder)


def wait_for_checkpoint(folder, step):
    deadline = time.monotonic() + 120
    while not any(saved >= step for saved in saved_steps(folder / "checkpoints")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_processes_that_see_other_images_or_checkpoints_stop(made_data, runs, pictures, tmp_path):
    """Else their rows would be of other images, or their parameters of another step."""
    older = shutil.copytree(runs[1][0], tmp_path / "older")
    shutil.rmtree(older / "checkpoints" / "4")
    where = f"--model_dir={runs[1][0]}"
    caption = start(2, [["caption", where, str(pictures / "0.png")]], {1: [str(pictures)]})
    evaluate = start(
        2, [[*EVALUATE, where, f"--data_dir={made_data}"]], {1: [f"--model_dir={older}"]}
    )
    codes, said = finish(caption)
    assert codes == [2, 2] and all("Process 1 on " in text for text in said), said
    assert all("has other images than process 0" in text for text in said)
    codes, said = finish(evaluate)
    assert codes == [2, 2], said
    assert all("has other checkpoints or data than process 0" in text for text in said)


@pytest.mark.parametrize(("saves", "code"), [(True, 0), (False, -signal.SIGTERM)])
def test_sigterm_ends_a_process_that_met_others_and_saves_nothing(saves, code):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (
        "import argparse, os, signal, time\n"
        "from simvlm_jax.cli import options\n"
        "parser = argparse.ArgumentParser()\n"
        "options.add_processes(parser)\n"
        f"options.join_processes(parser.parse_args(), {saves})\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(1)\n"
    )
    flags = [f"--coordinator_address=127.0.0.1:{port}", "--process_count=1", "--process_index=0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", program, *flags], env=environment, timeout=60)
    assert ended.returncode == code
