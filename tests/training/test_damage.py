"""Whatever happens to the files: a checkpoint comes back as it was, or the one before does."""

import json
import shutil

import numpy as np
import pytest

import standin
from simvlm_jax.partitioning import Partitioner
from simvlm_jax.training import checkpoints, optimizers, reading
from simvlm_jax.training.keeping import KeepRules
from simvlm_jax.training.state import abstract_state, lay_out
from standin import run, same


@pytest.fixture(scope="module")
def target():
    model, stream = standin.Model(), standin.Stream()
    optimizer = optimizers.adamw(
        total_steps=12, clip_norm=1.0, ema_decay=0.9, peak_learning_rate=0.1
    )
    return abstract_state(model, optimizer, stream, lay_out(model, stream, Partitioner()))


@pytest.fixture(scope="module")
def before(whole, target, tmp_path_factory):
    """The state of step 8."""
    folder = shutil.copytree(whole[0], tmp_path_factory.mktemp("before") / "copy")
    shutil.rmtree(folder / "checkpoints" / "12")
    return restored(folder, target)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the whole run with checkpoints 4, 8 and 12, to be damaged."""
    return shutil.copytree(whole[0], tmp_path / "copy")


def restored(folder, target):
    with checkpoints.Checkpoints(folder) as saved:
        return saved.restore_latest(target)


def files_of(folder):
    files = sorted(path for path in (folder / "checkpoints" / "12").rglob("*") if path.is_file())
    assert {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "metadata", "process_0"} <= {
        path.name for path in files
    }
    return files


def come_back(copy, target, whole, before, told):
    """Restores step 12, or 8 and says so; then brings 12 back. Returns which."""
    state = restored(copy, target)
    step, aside = int(state.step), copy / "damaged_checkpoints" / "12"
    same(state, {12: whole[1], 8: before}[step])
    assert ("checkpoints/12 " in told.readouterr().err) == (step == 8) == aside.exists()
    if aside.exists():
        aside.rename(copy / "checkpoints" / "12")
    return step


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(copy, target, whole, before, capsys):
    generator = np.random.default_rng(5)
    files = files_of(copy)
    steps = []
    for path in [*files, *generator.choice(files, 40 - len(files))]:
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[generator.integers(len(flipped))] ^= 1 << generator.integers(8)
        path.write_bytes(flipped)
        steps.append(come_back(copy, target, whole, before, capsys))
        path.write_bytes(original)
        if path.parent.name == "manifest" and path.name == "metadata":
            assert steps[-1] == 8
    assert {8, 12} == set(steps) and len(steps) == 40


def test_a_file_emptied_is_noticed_or_harmless(copy, target, whole, before, capsys):
    noticed = set()
    for path in files_of(copy):
        original = path.read_bytes()
        path.write_bytes(b"")
        if come_back(copy, target, whole, before, capsys) == 8:
            noticed.add(str(path.relative_to(copy / "checkpoints" / "12")))
        path.write_bytes(original)
    wanted = {"manifest/metadata", "params/_METADATA", "params/manifest.ocdbt"}
    assert wanted <= noticed


def lose_params(folder):
    shutil.rmtree(folder / "params")


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


def swap_items(folder):
    """The optimizer of another step: whole in itself."""
    shutil.rmtree(folder / "optimizer")
    shutil.copytree(folder.parent / "8" / "optimizer", folder / "optimizer")


@pytest.mark.parametrize("damage", [lose_params, replace_by_file, swap_items])
def test_half_a_checkpoint_is_none(copy, target, whole, before, capsys, damage):
    damage(copy / "checkpoints" / "12")
    assert come_back(copy, target, whole, before, capsys) == 8


@pytest.mark.parametrize("seal", ["kept", "renamed", "of a text"])
def test_a_changed_manifest_is_damage_and_not_another_model(copy, target, seal, capsys):
    path = copy / "checkpoints" / "12" / "manifest" / "metadata"
    manifest = json.loads(path.read_bytes())
    manifest["params"]["head/kernel"]["shape"] = [8, 5]
    if seal != "kept":
        manifest["shb256" if seal == "renamed" else "sha256"] = "text"
    path.write_text(json.dumps(manifest))
    assert int(restored(copy, target).step) == 8
    assert "checkpoints/12 cannot be read: its manifest is" in capsys.readouterr().err


def test_a_manifest_of_former_versions_has_no_seal(copy, target, whole):
    path = copy / "checkpoints" / "12" / "manifest" / "metadata"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    same(restored(copy, target), whole[1])


def test_a_checkpoint_whose_metrics_or_time_are_damaged_is_set_aside(tmp_path, capsys):
    keep = {"best": "loss", "newest": 3}
    run(tmp_path, keep=keep)
    (tmp_path / "checkpoints" / "4" / "metrics" / "metrics").write_text("{")
    (tmp_path / "checkpoints" / "8" / "_CHECKPOINT_METADATA").write_text(
        '{"commit_timestamp_nsecs": "soon"}'
    )
    with checkpoints.Checkpoints(tmp_path, KeepRules(**keep)) as saved:
        assert saved.steps() == [12]
    told = capsys.readouterr().err
    assert "checkpoints/4 cannot be read" in told and "checkpoints/8 cannot be read" in told
    assert sorted(path.name for path in (tmp_path / "damaged_checkpoints").iterdir()) == ["4", "8"]
    assert reading.restore_params(tmp_path)
