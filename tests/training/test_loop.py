import json

import jax
import numpy as np
import pytest
from standin import losses, run

from simvlm_jax.errors import UserError
from simvlm_jax.training.checkpoints import saved_steps


def same(left, right):
    """Bit for bit, every leaf."""
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its folder and its last state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def test_it_learns_reports_and_keeps_the_newest_checkpoints(whole):
    folder, state = whole
    assert int(state.step) == 12
    assert saved_steps(folder / "checkpoints") == [4, 8, 12]
    told = losses(folder)
    assert list(told) == [1, 3, 6, 9, 12]
    assert told[12] < 0.5 * told[1]


def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path):
    run(tmp_path, 8)
    seconds = json.loads((tmp_path / "training.json").read_bytes())["seconds"]
    state = run(tmp_path)
    same(state, whole[1])
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record["steps"] == 12 and record["seconds"] > seconds


def test_a_finished_folder_only_returns(whole):
    folder, state = whole
    before = (folder / "training.json").read_bytes()
    again = run(folder, stream={"end": 0})  # a stream with nothing in it
    same(again, state)
    assert (folder / "training.json").read_bytes() == before


def test_fewer_steps_than_the_checkpoint_is_refused(whole):
    with pytest.raises(UserError, match="total_steps=8 lies behind the checkpoint of step 12"):
        run(whole[0], 8)
