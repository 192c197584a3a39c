"""What T5X lacks: SIGTERM leaves a checkpoint of the current state, a loss of NaN stops the run."""

import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import unflatten_dict

import engine

pytest.importorskip("t5x.train", reason="T5X is not installed")

from simvlm_jax import t5x_adapter  # noqa: E402
from simvlm_jax.training import reading, t5x_format, verifying  # noqa: E402

TABLE = "target/token_embedding"
POISON = str(Path(__file__).parent / "poison.gin")


@pytest.mark.parametrize("distributed", [False, True], ids=["alone", "jax.distributed"])
def test_sigterm_saves_the_current_state(data, tmp_path, distributed):
    extra = []
    if distributed:
        address = f"--coordinator_address=127.0.0.1:{engine.free_port()}"
        extra = ["--multiprocess_gpu", address, "--process_count=1", "--process_index=0"]
    folder = tmp_path / "run"
    bindings = [f"MODEL_DIR = '{folder}'", "TOTAL_STEPS = 100000", "CHECKPOINT_PERIOD = 100000"]
    bindings += ["STATS_PERIOD = 1"]
    process = engine.start("train", data, ["t5x/pretrain.gin"], bindings, extra=extra)
    code, output = engine.terminate_after(process, lambda: engine.trained(folder) >= 3)
    assert code != 0 and "PreemptionError" in output, output[-3000:]
    *_, step = engine.steps(folder)
    assert 3 <= step < 100000
    saved, first = reading.restore_params(folder, step), reading.restore_params(folder, 0)
    assert np.isfinite(saved["token_embedding"]).all()
    assert np.abs(saved["token_embedding"] - first["token_embedding"]).max() > 0
    # Saved is the state of just that step: a run that was not disturbed agrees.
    whole = tmp_path / "whole"
    until = [f"CHECKPOINT_PERIOD = {step}", "EVAL_STEPS = 1"]
    schedule = ["optimizers.adamw.total_steps = 100000"]
    engine.pretrain(data, whole, step, *until, *schedule)
    undisturbed = reading.restore_params(whole, step)
    np.testing.assert_array_equal(saved["token_embedding"], undisturbed["token_embedding"])


def test_a_poisoned_batch_stops_the_run_before_it_is_saved(data, tmp_path):
    bindings = [f"MODEL_DIR = '{tmp_path}'", "TOTAL_STEPS = 6"]
    process = engine.start("train", data, ["t5x/pretrain.gin", POISON], bindings)
    code, output = engine.finish(process)
    assert code != 0 and "The loss became nan at step 3" in output, output[-3000:]
    assert engine.steps(tmp_path) == [0, 2]
    assert np.isfinite(reading.restore_params(tmp_path)["token_embedding"]).all()


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(data, pretrained, tmp_path):
    found = [verifying.verify(*one, lambda *_: None) for one in verifying.find(pretrained)]
    assert [(one.step, one.state) for one in found] == [(s, "verified") for s in (0, 2, 4)]
    folder = Path(shutil.copytree(pretrained, tmp_path / "run"))
    for path in (folder / "checkpoint_4" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-5])
    output = engine.pretrain(data, folder, 4, "TRAIN_EVAL = None", "INFER_EVAL = None")
    assert f"The checkpoint {folder / 'checkpoint_4'} is damaged: " in output
    assert "Going on from step 2 instead." in output
    assert engine.steps(folder) == [0, 2, 4]
    assert (folder / "damaged_checkpoints" / "checkpoint_4" / "state").is_dir()
    same, wanted = reading.restore_params(folder, 4), reading.restore_params(pretrained, 4)
    np.testing.assert_array_equal(same["token_embedding"], wanted["token_embedding"])


@pytest.mark.parametrize("name", ["target/token_embedding", "state/step"])
def test_what_t5x_restores_is_verified(pretrained, name):
    entries = reading.read_manifest(pretrained / "checkpoint_4", ("state",))["state"]
    tree = reading.read_tree(t5x_format.folder(pretrained, 4), lambda path: True)
    nested = unflatten_dict({tuple(path.split("/")): array for path, array in tree.items()})
    manager = t5x_adapter.VerifiedManager(
        pretrained,
        ocp.CheckpointManagerOptions(step_prefix="checkpoint", read_only=True),
        {"state": ocp.PyTreeCheckpointHandler()},
    )
    wanted = ocp.args.Composite(state=ocp.args.PyTreeRestore(nested))
    restored = manager.restore(4, wanted, pretrained)
    np.testing.assert_array_equal(restored["state"]["target"]["token_embedding"], tree[TABLE])
    entries[name]["digest"] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "read_manifest", lambda *_: {"state": entries})
        with pytest.raises(reading.DamagedError, match=f"{name} has digest"):
            manager.restore(4, wanted, pretrained)


def test_a_moving_average_is_kept_and_read(data, tmp_path):
    engine.pretrain(data, tmp_path, 2, "optimizers.adamw.ema_decay = 0.5")
    average, params = reading.restore_params(tmp_path, ema=True), reading.restore_params(tmp_path)
    difference = np.abs(average["token_embedding"] - params["token_embedding"])
    assert 0 < difference.max() < 1e-2
