import json
import os
import signal

import jax
import numpy as np
import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.training.guards import NonFiniteError
from simvlm_jax.training.reading import saved_steps
from standin import Stream, losses, run, same


def test_it_learns_reports_and_keeps_the_newest_checkpoints(whole, tmp_path):
    folder, state = whole
    assert int(state.step) == 12
    assert saved_steps(folder / "checkpoints") == [4, 8, 12]
    told = losses(folder)
    assert list(told) == [1, 3, 6, 9, 12]
    assert told[12] < 0.6 * told[1]
    run(tmp_path, keep={"newest": 2})
    assert saved_steps(tmp_path / "checkpoints") == [8, 12]


def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path):
    run(tmp_path, 8)
    seconds = json.loads((tmp_path / "training.json").read_bytes())["seconds"]
    state = run(tmp_path)
    same(state, whole[1])
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record["steps"] == 12 and record["seconds"] > seconds


def test_accumulation_resumes_between_two_updates(tmp_path):
    settings = {"optimizer": {"accumulate": 3}}
    whole = run(tmp_path / "whole", **settings)
    run(tmp_path / "parts", 4, **settings)  # one batch of three is in the accumulator
    same(run(tmp_path / "parts", **settings), whole)


def test_dropout_follows_from_the_seed(whole, tmp_path):
    params = whole[1].params
    kernels = [
        run(tmp_path / str(number), 2, initial_params=params, seed=seed).params["head"]["kernel"]
        for number, seed in enumerate([0, 0, 1])
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_a_finished_folder_only_returns(whole):
    folder, state = whole
    before = (folder / "training.json").read_bytes()
    again = run(folder, stream={"end": 0})  # a stream with nothing in it
    same(again, state)
    assert (folder / "training.json").read_bytes() == before


def test_fewer_steps_than_the_checkpoint_is_refused(whole):
    with pytest.raises(UserError, match="total_steps=8 lies behind the checkpoint of step 12"):
        run(whole[0], 8)


def test_initial_params_are_used_and_stay_the_callers(whole, tmp_path):
    initial = jax.tree.map(np.asarray, whole[1].params)
    on_device = jax.tree.map(jax.numpy.asarray, initial)
    run(tmp_path, 3, initial_params=on_device)
    same(on_device, initial)  # training donates its buffers, and these are not among them
    assert losses(tmp_path)[1] < 0.8 * losses(whole[0])[1]


def test_initial_params_of_another_model_are_refused(whole, tmp_path):
    with pytest.raises(
        UserError, match=r"another model: head/kernel has shape \[8, 4\] in it, not"
    ):
        run(tmp_path, initial_params=whole[1].params, model={"hidden": 6})


def test_files_that_change_the_meaning_of_the_parameters_cannot_change(tmp_path):
    files = {"model_config.json": b"{}", "vocabulary.model": b"v", "config.gin": b"a = 1"}
    run(tmp_path, 4, extra_files=files)
    for name in ["model_config.json", "vocabulary.model"]:
        with pytest.raises(UserError, match=f"^{name} does not match the checkpoints in"):
            run(tmp_path, extra_files=files | {name: b"other"})
    run(tmp_path, extra_files=files | {"config.gin": b"a = 2"})
    assert (tmp_path / "config.gin").read_bytes() == b"a = 2"
    assert (tmp_path / "vocabulary.model").read_bytes() == b"v"


@pytest.mark.parametrize(
    ("poisoned", "saved", "sentence"),
    [
        (9, [4, 8], r"loss became nan at step 10: .* last good checkpoint is .*/checkpoints/8\.$"),
        (7, [4], r"loss became nan at step 8: .* last good checkpoint is .*/checkpoints/4\.$"),
        (1, [], r"loss became nan at step 2: .* there is no checkpoint yet\.$"),
    ],
)
def test_a_loss_that_is_no_number_stops_and_is_never_saved(tmp_path, poisoned, saved, sentence):
    with pytest.raises(NonFiniteError, match=sentence):
        run(tmp_path, stream={"poison_at": poisoned}, log_every=100)
    assert saved_steps(tmp_path / "checkpoints") == saved


def test_sigterm_saves_the_step_and_leaves_with_0(whole, tmp_path):
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(
            tmp_path,
            stream={"signal_at": 6, "signal_number": int(signal.SIGTERM)},
            checkpoint_every=100,
        )
    assert stopped.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is former
    (step,) = saved_steps(tmp_path / "checkpoints")
    assert 5 <= step <= 7  # batch 6 is prepared while step 5 or 6 runs
    assert json.loads((tmp_path / "training.json").read_bytes())["steps"] == step
    same(run(tmp_path), whole[1])


def test_an_error_in_the_data_leaves_the_last_save_whole(tmp_path, whole, monkeypatch):
    class BrokenError(Exception):
        pass

    def batch(self, step):
        if step == 8:
            raise BrokenError
        return whole_batch(self, step)

    whole_batch = Stream.batch
    monkeypatch.setattr(Stream, "batch", batch)
    with pytest.raises(BrokenError):
        run(tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [4, 8]
    monkeypatch.undo()
    same(run(tmp_path), whole[1])


def test_losses_beyond_the_checkpoint_are_told_once(tmp_path):
    with pytest.raises(NonFiniteError):
        run(tmp_path, stream={"poison_at": 11})
    assert list(losses(tmp_path)) == [1, 3, 6, 9]
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 1')  # a kill may cut a line short
    run(tmp_path)
    lines = (tmp_path / "losses.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3, 6, 9, 12]
    assert os.listdir(tmp_path / "checkpoints") and len(lines) == 5
