import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

from simvlm_jax.errors import UserError
from simvlm_jax.training import checkpoints, optimizers, reading
from simvlm_jax.training.keeping import KeepRules
from simvlm_jax.training.state import TrainState
from standin import run, same


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the whole run with checkpoints 4, 8 and 12, to be damaged."""
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_parameters_and_their_average_come_back(whole):
    folder, state = whole
    same(reading.restore_params(folder), state.params)
    same(reading.restore_params(folder, ema=True), optimizers.ema_params(state.opt_state))
    early = reading.restore_params(folder, step=4)
    assert not np.array_equal(early["head"]["kernel"], state.params["head"]["kernel"])


def test_what_is_not_there_is_said(whole, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint of step 5 in .*, only of \[4, 8, 12\]"):
        reading.restore_params(whole[0], step=5)
    with pytest.raises(UserError, match="There is no checkpoint in .*nowhere"):
        reading.restore_params(tmp_path / "nowhere")
    run(tmp_path, 1, optimizer={"ema_decay": None})
    with pytest.raises(UserError, match="holds no moving average"):
        reading.restore_params(tmp_path, ema=True)


def data_files(folder):
    return [path for path in folder.rglob("d/*") if path.is_file()]


def truncate(folder):
    for path in data_files(folder / "params"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def lose_manifest(folder):
    shutil.rmtree(folder / "manifest")


def cut_manifest(folder):
    (path,) = (path for path in (folder / "manifest").iterdir() if path.name == "metadata")
    path.write_bytes(path.read_bytes()[:-20])


def flip_one_bit_of_one_number(folder):
    """What a flipped bit on disk amounts to where the file format does not notice it."""
    handler = ocp.StandardCheckpointHandler()
    params = handler.restore(folder / "params")
    kernel = np.array(params["head"]["kernel"])
    kernel.view(np.uint32)[2, 1] ^= 1
    params["head"]["kernel"] = jnp.asarray(kernel)
    shutil.rmtree(folder / "params")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params)


@pytest.mark.parametrize(
    "damage", [truncate, empty, lose_manifest, cut_manifest, flip_one_bit_of_one_number]
)
def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(copy, whole, damage, capsys):
    damage(copy / "checkpoints" / "12")
    expected = reading.restore_params(whole[0], step=8)
    same(reading.restore_params(copy), expected)
    assert "checkpoints/12" in capsys.readouterr().err
    with pytest.raises(reading.DamagedError, match="checkpoints/12 "):
        reading.restore_params(copy, step=12)
    assert (copy / "checkpoints" / "12").exists()  # reading moves nothing

    same(run(copy), whole[1])
    told = capsys.readouterr().err
    assert "checkpoints/12" in told and "Going on from step 8 instead." in told
    assert [path.name for path in (copy / "damaged_checkpoints").iterdir()] == ["12"]
    assert reading.saved_steps(copy / "checkpoints") == [4, 8, 12]


def test_bits_flipped_on_disk_never_pass(copy, whole):
    """Whatever a flipped bit hits, the right numbers come back or none do."""
    generator, refused = np.random.default_rng(0), 0
    files = sorted(data_files(copy / "checkpoints" / "12" / "params"))
    for path in files * 3:
        content = bytearray(path.read_bytes())
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        original = path.read_bytes()
        path.write_bytes(bytes(content))
        try:
            same(reading.restore_params(copy, step=12), whole[1].params)
        except reading.DamagedError:
            refused += 1
        path.write_bytes(original)
    assert refused > 0
    same(reading.restore_params(copy, step=12), whole[1].params)


def test_only_a_step_s_own_name_is_a_checkpoint(tmp_path):
    for name in ("07", "12", "x", "²", "3.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    assert reading.saved_steps(tmp_path) == [12]


def test_no_whole_checkpoint_at_all(copy):
    for step in [4, 8, 12]:
        truncate(copy / "checkpoints" / str(step))
    with pytest.raises(UserError, match="None of the checkpoints in .* can be restored"):
        run(copy)
    assert reading.saved_steps(copy / "checkpoints") == [4, 8, 12]
    with pytest.raises(UserError, match="checkpoints/4 "):
        reading.restore_params(copy)


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(copy):
    with pytest.raises(UserError, match=r"written with another model: head/kernel has shape"):
        run(copy, model={"hidden": 6})
    with pytest.raises(UserError, match="another optimizer: it also has opt_state/2/count"):
        run(copy, optimizer={"ema_decay": None})
    assert reading.saved_steps(copy / "checkpoints") == [4, 8, 12]


def test_a_save_holds_the_state_of_its_moment(tmp_path):
    """The next step donates the buffers while the save is still being written."""
    update = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state = TrainState(jnp.int32(0), {"kernel": jnp.zeros((512, 512))}, (jnp.zeros(8),))
    with checkpoints.Checkpoints(tmp_path, KeepRules(newest=5)) as saved:
        for _ in range(4):
            saved.save(state)
            state = update(state)
    for step in range(4):
        kernel = reading.restore_params(tmp_path, step=step)["kernel"]
        np.testing.assert_array_equal(kernel, np.full((512, 512), step))


def replace_with_file(folder):
    folder.rename(folder.with_name("former"))
    folder.write_text("")


def replace_with_system_folder(folder):
    """Where nobody can write, not even root."""
    folder.rename(folder.with_name("former"))
    folder.symlink_to("/proc/self")


STATE = TrainState(jnp.int32(0), {"kernel": jnp.ones((4, 4))}, (jnp.zeros(8),))


@pytest.mark.parametrize("replace", [replace_with_file, replace_with_system_folder])
def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, replace, capfd):
    folder = tmp_path / "checkpoints"
    sentence = f"A checkpoint cannot be written into {folder}: .*; there is no checkpoint yet"
    with (  # noqa: PT012
        pytest.raises(checkpoints.SaveError, match=sentence),
        checkpoints.Checkpoints(tmp_path) as saved,
    ):
        saved.save(STATE)
        saved.last_good()
        replace(folder)
        saved.save(STATE.replace(step=jnp.int32(1)))
    assert capfd.readouterr().err == ""
    folder.unlink()
    (tmp_path / "former").rename(folder)
    with checkpoints.Checkpoints(tmp_path) as saved:
        same(saved.restore_latest(abstract(STATE)), STATE)


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def fail_in_background(monkeypatch):
    """As a disk does that is full for a while."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicRenameTemporaryPath, "finalize", refuse)


def test_a_save_that_failed_in_the_background_is_told_at_the_next_log_point(tmp_path, monkeypatch):
    with checkpoints.Checkpoints(tmp_path) as saved:
        fail_in_background(monkeypatch)
        saved.save(STATE)
        with pytest.raises(checkpoints.SaveError, match="No space left on device"):
            for _ in range(1000):
                time.sleep(0.01)
                assert not saved.due_by_time()
        assert saved.last_good() == "there is no checkpoint yet"
        monkeypatch.undo()
        with pytest.raises(checkpoints.SaveError, match="No space left on device"):
            saved.save(STATE)  # what Orbax holds after an error is not to be trusted


def test_a_save_that_failed_at_the_end_is_an_error(tmp_path, monkeypatch):
    fail_in_background(monkeypatch)
    with (
        pytest.raises(checkpoints.SaveError, match="No space left on device"),
        checkpoints.Checkpoints(tmp_path) as saved,
    ):
        saved.save(STATE)


def test_the_manifest_is_plain_json(whole):
    path = whole[0] / "checkpoints" / "12" / "manifest" / "metadata"
    entry = json.loads(path.read_bytes())["params"]["head/kernel"]
    assert entry["shape"] == [8, 4] and entry["dtype"] == "float32"
