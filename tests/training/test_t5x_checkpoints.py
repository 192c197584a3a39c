"""T5X's checkpoints without T5X: its layout by hand, round trips bit for bit, refusals."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from simvlm_jax.cli.main import main
from simvlm_jax.errors import UserError
from simvlm_jax.training import reading, t5x_checkpoints, t5x_format
from standin import run, same

ARRAYS = {
    "target/encoder/kernel": 1,
    "state/step": 2,
    "state/param_states/0/mu/encoder/kernel": 3,
}


@pytest.fixture(scope="module")
def exported(whole, tmp_path_factory):
    """What an uninterrupted run's checkpoint of step 8 looks like as T5X's."""
    folder = tmp_path_factory.mktemp("t5x")
    t5x_checkpoints.export(whole[0], folder, step=8)
    return folder


def test_names_belong_together():
    params, optimizer = t5x_format.to_own(ARRAYS)
    assert params == {"encoder/kernel": 1}
    assert optimizer == {"step": 2, "opt_state/0/mu/encoder/kernel": 3}
    assert t5x_format.from_own(params, optimizer) == ARRAYS


def test_the_layout_is_t5x_s(exported, whole):
    assert [path.name for path in exported.iterdir()] == ["checkpoint_8"]
    tree = ocp.PyTreeCheckpointHandler().restore(exported / "checkpoint_8" / "state")
    assert set(tree) == {"target", "state"} and set(tree["state"]) == {"step", "param_states"}
    assert int(tree["state"]["step"]) == 8
    same(tree["target"], reading.restore_params(whole[0], step=8))


def test_parameters_come_back_bit_for_bit(exported, whole):
    same(reading.restore_params(exported), reading.restore_params(whole[0], step=8))
    same(reading.restore_params(exported, 8, ema=True), reading.restore_params(whole[0], 8, True))
    with pytest.raises(UserError, match="no checkpoint of step 9"):
        reading.restore_params(exported, step=9)


def test_our_loop_goes_on_from_it_as_from_its_own(exported, whole, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "run")
    for name in ("model_config.json", "vocabulary.model"):
        if (whole[0] / name).exists():
            shutil.copy(whole[0] / name, folder)
    state = run(folder)
    same(state, whole[1])
    assert int(state.step) == 12


def test_another_model_s_checkpoint_is_refused(exported, tmp_path):
    tree = {"target": {"other": np.zeros(3)}, "state": {"step": np.int32(4)}}
    options = ocp.CheckpointManagerOptions(step_prefix="checkpoint", create=True)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(4, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
    with pytest.raises(UserError, match="checkpoint_4/state was written with another model"):
        run(tmp_path)


def test_nothing_is_overwritten_and_missing_steps_are_named(exported, whole):
    with pytest.raises(UserError, match="checkpoint_8 is there already"):
        t5x_checkpoints.export(whole[0], exported, step=8)
    with pytest.raises(UserError, match=r"those of steps \[4, 8, 12\]"):
        t5x_checkpoints.export(whole[0], exported, step=5)


def test_the_verb_refuses_a_folder_without_a_run(tmp_path, capsys):
    arguments = ["export", "--format=t5x", f"--model_dir={tmp_path}", f"--output={tmp_path}/o"]
    assert main(arguments) == 2
    assert "holds no model_config.json" in capsys.readouterr().err
    assert jax.tree.leaves(list(tmp_path.iterdir())) == []
