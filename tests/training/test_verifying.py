import json
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from simvlm_jax.cli.main import main
from simvlm_jax.training import digests, reading, t5x_checkpoints, verifying
from simvlm_jax.training.state import items_of


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def inspect(capsys, folder, *flags):
    """Returns the exit code and what was printed."""
    code = main(["inspect", "checkpoint", f"--model_dir={folder}", *flags])
    return code, capsys.readouterr().out


def change_one_number(folder, item, path):
    """Writes an item anew with one bit of an array flipped: only a digest can tell."""
    tree = ocp.StandardCheckpointHandler().restore(folder / item)
    leaf = tree
    for part in path[:-1]:
        leaf = leaf[part]
    array = np.array(leaf[path[-1]])
    array.view(np.uint32).ravel()[-1] ^= 1
    leaf[path[-1]] = jnp.asarray(array)
    shutil.rmtree(folder / item)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / item, tree)


def test_every_checkpoint_of_a_run_is_verified(whole, capsys):
    arrays = sum(len(digests.paths(tree)) for tree in items_of(whole[1]).values())
    code, told = inspect(capsys, whole[0])
    lines = told.splitlines()
    assert code == 0 and [line.split()[1] for line in lines] == ["4", "8", "12"]
    assert all(line.endswith(f"MB  {arrays} arrays  verified") for line in lines)
    code, told = inspect(capsys, whole[0], "--step=8", "--json")
    (found,) = map(json.loads, told.splitlines())
    folder = whole[0] / "checkpoints" / "8"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert code == 0 and found == {
        "folder": str(folder),
        "step": 8,
        "bytes": size,
        "arrays": arrays,
        "state": "verified",
        "trouble": [],
    }
    assert inspect(capsys, folder) == (0, told.replace(told, lines[1] + "\n"))


def test_damaged_arrays_are_named(copy, capsys):
    change_one_number(copy / "checkpoints" / "8", "params", ("head", "kernel"))
    for path in (copy / "checkpoints" / "12" / "optimizer").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-5])
    shutil.rmtree(copy / "checkpoints" / "4" / "manifest")
    code, told = inspect(capsys, copy)
    four, eight, twelve = told.splitlines()
    assert code == 1 and all("damaged: " in line for line in (four, eight, twelve))
    assert "params/head/kernel has digest" in eight and eight.count("digest") == 1
    assert "optimizer/opt_state" in twelve and "params/" not in twelve
    assert "manifest" in four
    assert inspect(capsys, copy / "checkpoints" / "8")[0] == 1


@pytest.mark.parametrize(("most", "largest"), [(1, 1), (2**28, 27)])
def test_no_more_is_read_at_a_time_than_memory_allows(whole, monkeypatch, most, largest):
    read, sizes = verifying.read_tree, []

    def watched(folder, wanted):
        found = read(folder, wanted)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(verifying, "read_tree", watched)
    monkeypatch.setattr(verifying, "MOST_BYTES", most)
    told = []
    verdict = verifying.verify(
        12, whole[0] / "checkpoints" / "12", lambda *progress: told.append(progress)
    )
    assert sum(sizes) == verdict.arrays == len(told) and max(sizes) <= largest
    assert len(sizes) == (verdict.arrays if most == 1 else 2)
    assert told[-1] == ("step 12", verdict.arrays, verdict.arrays)


def test_those_of_t5x_are_read(whole, tmp_path, capsys):
    t5x_checkpoints.export(whole[0], tmp_path, step=8)
    code, told = inspect(capsys, tmp_path)
    assert code == 0 and "step 8" in told and told.rstrip().endswith("verified")
    assert inspect(capsys, tmp_path / "checkpoint_8") == (0, told)
    for path in (tmp_path / "checkpoint_8").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-5])
    code, told = inspect(capsys, tmp_path)
    assert code == 1 and "damaged: " in told and "checkpoint_8" in told


def test_t5x_s_own_without_digests_are_read(whole, tmp_path, capsys):
    t5x_checkpoints.export(whole[0], tmp_path, step=8)
    shutil.rmtree(tmp_path / "checkpoint_8" / "manifest")
    code, told = inspect(capsys, tmp_path)
    assert code == 0 and "step 8" in told and "no digests; all arrays can be read" in told


def test_an_infinite_number_in_t5x_s_is_damage(tmp_path, capsys):
    tree = {"target": {"kernel": np.array([1, np.inf], np.float32)}, "state": {"step": np.int32(4)}}
    options = ocp.CheckpointManagerOptions(step_prefix="checkpoint", create=True)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(4, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
    code, told = inspect(capsys, tmp_path)
    assert code == 1 and told.rstrip().endswith("damaged: target/kernel is not finite")


def test_where_there_is_none_it_is_said(whole, tmp_path, capsys):
    assert main(["inspect", "checkpoint", f"--model_dir={tmp_path}"]) == 2
    assert "There is no checkpoint in" in capsys.readouterr().err
    assert main(["inspect", "checkpoint", f"--model_dir={whole[0]}", "--step=5"]) == 2
    assert "no checkpoint of step 5 in" in capsys.readouterr().err
    assert reading.saved_steps(whole[0] / "checkpoints") == [4, 8, 12]
