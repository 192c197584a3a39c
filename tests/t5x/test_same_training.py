"""Twenty steps under T5X and under our loop are the same training, and their checkpoints cross."""

from pathlib import Path

import jax
import numpy as np
import pytest

import engine

pytest.importorskip("t5x.train", reason="T5X is not installed")

from simvlm_jax import configuration  # noqa: E402
from simvlm_jax.cli.main import main  # noqa: E402
from simvlm_jax.partitioning import Partitioner  # noqa: E402
from simvlm_jax.training import reading, t5x_checkpoints, t5x_format  # noqa: E402
from simvlm_jax.training.checkpoints import Checkpoints  # noqa: E402
from simvlm_jax.training.state import abstract_state, lay_out  # noqa: E402

HERE = Path(__file__).parent
STEPS = 20
LONG = [f"CHECKPOINT_PERIOD = {STEPS}", "BATCH_SIZE = 32"]
EACH_STEP = [
    "STATS_PERIOD = 1",
    "INFER_EVAL = None",
]
OURS = ["loop.train.log_every = 1"]
SGD = {"t5x": [str(HERE / "plain_sgd_t5x.gin")], "ours": [str(HERE / "plain_sgd.gin")]}
NONE = {"t5x": [], "ours": []}
CASES = {
    "sgd-1-device": (SGD, 1, None),
    "sgd-8-devices-4-microbatches": (SGD, 8, 4),
    "adamw-1-device-4-microbatches": (NONE, 1, 4),
    "adamw-8-devices": (NONE, 8, None),
}


def flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in leaves}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_parameters_agree(data, tmp_path, name):
    files, devices, microbatches = CASES[name]
    theirs, own = tmp_path / "t5x", tmp_path / "ours"
    bindings = [*LONG, *EACH_STEP, f"NUM_MICROBATCHES = {microbatches}"]
    bindings += engine.MESH_8X1 * (devices == 8)
    engine.pretrain(data, theirs, STEPS, *bindings, files=files["t5x"], devices=devices)
    start = tmp_path / "start.gin"
    start.write_text(
        "from __gin__ import dynamic_registration\n"
        "from simvlm_jax.training import loop\n"
        "from simvlm_jax.training import reading\n"
        "loop.train.initial_params = @reading.restore_params()\n"
        f"reading.restore_params:\n  model_dir = '{theirs}'\n  step = 0\n"
    )
    files = [str(start), *files["ours"]]
    engine.ours(data, own, STEPS, *LONG, *OURS, files=files, devices=devices)

    left, right = engine.logged(theirs), engine.losses(own)
    assert set(left) == set(right) == set(range(1, STEPS + 1))
    relative = max(abs(left[step] / right[step] - 1) for step in left)
    print(f"{name}: losses differ by {relative:.1e} at most, {left[1]:.3f} to {left[STEPS]:.3f}")
    assert relative < 1e-5
    assert left[STEPS] < left[1]

    left, right = flat(reading.restore_params(theirs, STEPS)), flat(reading.restore_params(own))
    assert set(left) == set(right)
    distances = {
        path: np.linalg.norm(left[path] - right[path]) / max(np.linalg.norm(right[path]), 1e-6)
        for path in left
        if "'key']['bias'" not in path  # its gradient is zero but for rounding, which Adam enlarges
    }
    worst = max(distances, key=distances.get)
    print(f"{name}: parameters differ by {distances[worst]:.1e} at most, in {worst}")
    assert distances[worst] < (1e-6 if name.startswith("sgd") else 1e-3)


def arrays(model_dir, step):
    return reading.read_tree(t5x_format.folder(model_dir, step), lambda path: True)


def test_a_round_trip_is_bit_for_bit(data, pretrained, tmp_path, monkeypatch):
    """T5X's step 4, opened and saved by us, is T5X's step 4 again when it is exported."""
    import simvlm_jax.tasks  # noqa: F401 - registers them

    monkeypatch.setenv("SIMVLM_DATA_DIR", str(data))
    configuration.load(["runs/demo.gin"], [*engine.TINY, "TOTAL_STEPS = 4"])
    parts = [configuration.value(f"loop.train.{name}") for name in ("model", "optimizer", "stream")]
    layout = lay_out(parts[0], parts[2], Partitioner())
    state = t5x_checkpoints.restore_latest(pretrained, abstract_state(*parts, layout))
    with Checkpoints(tmp_path / "own") as checkpoints:
        checkpoints.save(state)
    t5x_checkpoints.export(tmp_path / "own", tmp_path / "back")
    before, after = arrays(pretrained, 4), arrays(tmp_path / "back", 4)
    assert set(before) == set(after) and len(before) > 100
    for path in before:
        np.testing.assert_array_equal(after[path], before[path], err_msg=path)
        assert after[path].dtype == before[path].dtype, path


def test_a_run_may_change_engines(data, tmp_path):
    """Two steps here, two there, two here again are six steps in one."""
    whole, crossed, back = (tmp_path / name for name in ("whole", "crossed", "back"))
    engine.pretrain(data, whole, 6, files=SGD["t5x"])
    engine.pretrain(data, crossed, 2, files=SGD["t5x"])
    engine.ours(data, crossed, 4, files=SGD["ours"])
    assert list(engine.losses(crossed)) == [3, 4]
    assert main(["export", "--format=t5x", f"--model_dir={crossed}", f"--output={back}"]) == 0
    engine.pretrain(data, back, 6, files=SGD["t5x"])
    assert engine.steps(back) == [4, 6]
    left, right = flat(reading.restore_params(whole, 6)), flat(reading.restore_params(back, 6))
    for path in left:
        np.testing.assert_allclose(left[path], right[path], rtol=1e-5, atol=1e-7, err_msg=path)
