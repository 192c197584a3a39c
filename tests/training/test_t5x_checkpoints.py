"""T5X's checkpoints without T5X: its layout by hand, round trips bit for bit, refusals."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from simvlm_jax.cli.main import main
from simvlm_jax.errors import UserError
from simvlm_jax.training import reading, t5x_checkpoints, t5x_format, verifying
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


@pytest.fixture
def two(exported, tmp_path):
    """A T5X folder with two checkpoints, of steps 8 and 12 (which is 8's, renamed)."""
    folder = shutil.copytree(exported, tmp_path / "run")
    shutil.copytree(folder / "checkpoint_8", folder / "checkpoint_12")
    return folder


def change_one_number(checkpoint, *path):
    """Rewrites the tree with one bit of one array flipped, as a disk might."""
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.restore(checkpoint / "state")
    inside = tree
    for name in path[:-1]:
        inside = inside[name]
    array = np.array(inside[path[-1]])
    array.reshape(-1).view(np.uint8)[0] ^= 1
    inside[path[-1]] = array
    shutil.rmtree(checkpoint / "state")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        writer.save(checkpoint / "state", args=ocp.args.PyTreeSave(tree))


def cut_off(checkpoint):
    for path in (checkpoint / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-5])


def flip_a_parameter(checkpoint):
    change_one_number(checkpoint, "target", "head", "kernel")


def spoil_the_manifest(checkpoint):
    path = checkpoint / "manifest" / "metadata"
    path.write_text(path.read_text().replace("1", "2", 1))


DAMAGE = [flip_a_parameter, cut_off, spoil_the_manifest]


@pytest.mark.parametrize("harm", DAMAGE)
def test_the_one_before_is_read_where_the_newest_is_damaged(two, whole, capsys, harm):
    harm(two / "checkpoint_12")
    same(reading.restore_params(two), reading.restore_params(whole[0], step=8))
    assert "checkpoint_12" in capsys.readouterr().err
    with pytest.raises(reading.DamagedError, match="checkpoint_12"):
        reading.restore_params(two, step=12)


def test_a_flipped_bit_of_the_optimizer_hinders_who_needs_it_alone(two, whole):
    change_one_number(two / "checkpoint_12", "state", "step")
    same(reading.restore_params(two, 12), reading.restore_params(whole[0], step=8))
    same(run(two), whole[1])


@pytest.mark.parametrize("harm", DAMAGE)
def test_our_loop_goes_on_from_the_one_before(two, whole, capsys, harm):
    harm(two / "checkpoint_12")
    same(run(two), whole[1])
    told = capsys.readouterr().err
    assert "checkpoint_12" in told and "Going on from step 8 instead." in told


@pytest.mark.parametrize("harm", DAMAGE)
def test_t5x_is_kept_from_a_damaged_one(two, exported, capsys, harm):
    harm(two / "checkpoint_12")
    t5x_checkpoints.set_damaged_aside(two)
    told = capsys.readouterr().err
    assert "checkpoint_12 is damaged: " in told and "Going on from step 8 instead." in told
    assert t5x_format.steps(two) == [8]
    assert (two / "damaged_checkpoints" / "checkpoint_12" / "state").is_dir()
    t5x_checkpoints.set_damaged_aside(two)
    assert t5x_format.steps(two) == [8] and capsys.readouterr().err == ""


def test_our_loop_goes_on_where_t5x_had_resumed_with_counts_as_floats(exported, whole, tmp_path):
    tree = ocp.PyTreeCheckpointHandler().restore(exported / "checkpoint_8" / "state")
    tree = jax.tree.map(lambda x: np.float32(x) if x.dtype == np.int32 else x, tree)
    assert tree["state"]["step"].dtype == np.float32
    options = ocp.CheckpointManagerOptions(step_prefix="checkpoint", create=True)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(8, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
    same(run(tmp_path), whole[1])


def test_where_none_is_whole_nothing_is_begun(two, capsys):
    for step in (8, 12):
        cut_off(two / f"checkpoint_{step}")
    with pytest.raises(UserError, match="None of the checkpoints in"):
        t5x_checkpoints.set_damaged_aside(two)
    with pytest.raises(UserError, match="None of the checkpoints in"):
        run(two)
    assert t5x_format.steps(two) == [8, 12]


def test_checkpoints_without_a_manifest_are_read_as_they_are(two, whole, capsys):
    flip_a_parameter(two / "checkpoint_12")
    shutil.rmtree(two / "checkpoint_12" / "manifest")
    t5x_checkpoints.set_damaged_aside(two)
    assert t5x_format.steps(two) == [8, 12] and capsys.readouterr().err == ""
    found, wanted = reading.restore_params(two), reading.restore_params(whole[0], step=8)
    assert np.sum(found["head"]["kernel"] != wanted["head"]["kernel"]) == 1


def test_a_process_looks_at_its_part_alone_and_no_further_than_it_must(two, monkeypatch):
    flip_a_parameter(two / "checkpoint_12")
    found = [
        verifying.first_trouble(two / "checkpoint_12", slice(index, None, 3)) for index in range(3)
    ]
    (sentence,) = filter(None, found)
    assert sentence.startswith("state/target/head/kernel has digest")
    cut_off(two / "checkpoint_12")
    read, groups = verifying.read_tree, []
    monkeypatch.setattr(verifying, "read_tree", lambda *args: [groups.append(1), read(*args)][1])
    assert verifying.first_trouble(two / "checkpoint_12", slice(None))
    manifest = reading.read_manifest(two / "checkpoint_12", ("state",))["state"]
    assert len(groups) < len(manifest) / 2


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
