"""Every row's gin resolves, its model builds, and its steps cost what the base row's cost."""

import jax
import pytest
import simvlm_jax.tasks  # noqa: F401  the gin files name tasks

from simvlm_jax import configuration
from simvlm_jax.ablation import plan
from simvlm_jax.ablation.rows import BASE, ROWS, chosen_rows
from simvlm_jax.data import streams
from simvlm_jax.data.plain import get_task
from simvlm_jax.errors import UserError
from simvlm_jax.models.flops import forward_flops
from simvlm_jax.planning.job import batch_shapes

PAPER = {67.43, 49.70, 65.23, 64.48, 49.23, 65.25, 66.23, 65.57, 66.55, 63.11, 66.71, 63.32}
BASE_STEPS, QUESTION_STEPS = 1000, 300
OTHER_NETWORKS = {
    "decoder_only_tiny": {"decoder_only": True, "encoder_layers": 0, "decoder_layers": 4},
    "decoder_only_lm_tiny": {"decoder_only": True, "bidirectional_prefix": False},
    "without_conv_stage": {"conv_layers": ()},
    "two_blocks": {"conv_layers": (1, 1)},
    "four_blocks": {"conv_layers": (1, 1, 2, 1)},
}


@pytest.fixture(scope="module")
def compute():
    return plan.compute_of(ROWS, BASE_STEPS, QUESTION_STEPS)


@pytest.fixture(scope="module")
def runs(compute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs of a day") / "it's"
    return plan.runs_of(ROWS, [0, 7], compute, folder, plan.Downstream())


def given(stage, flag):
    return [w.removeprefix(f"--{flag}=") for w in stage.command if w.startswith(f"--{flag}=")]


def load(stage):
    configuration.load(given(stage, "gin_file"), given(stage, "gin"))


def test_the_table_has_the_paper_s_rows():
    assert ROWS[0].name == BASE and len(ROWS) == 12
    assert {row.paper for row in ROWS} == PAPER
    assert len({row.name for row in ROWS}) == 12


def test_every_training_of_every_row_resolves_and_its_model_builds(runs):
    built = set()
    for run in runs[: len(ROWS)]:
        for stage in run.stages[:-1]:
            load(stage)
            configuration.check("loop.train")
            model = configuration.value("loop.train.model")
            stream = configuration.bindings(streams.GroupStream)
            shapes = batch_shapes(stream).input_shapes
            assert configuration.value("loop.train.total_steps") == stage.steps
            for task in (*stream["pairs"], *stream["documents"]):
                assert get_task(task)
            if model.config in built:
                continue
            built.add(model.config)
            made = jax.eval_shape(
                lambda model=model, shapes=shapes: model.get_initial_variables(
                    jax.random.key(0), shapes
                )
            )
            assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) > 2_000_000
    assert len(built) == 1 + len(OTHER_NETWORKS)


def test_each_row_differs_from_the_base_by_what_it_says(runs):
    first = {run.row.name: run.stages[0] for run in runs[: len(ROWS)]}
    load(first[BASE])
    base = configuration.value("loop.train.model").config
    pairs = configuration.value("PAIRS")
    for name, stage in first.items():
        load(stage)
        config = configuration.value("loop.train.model").config
        for field, value in OTHER_NETWORKS.get(name, {}).items():
            assert getattr(config, field) == value != getattr(base, field)
        assert (config != base) == (name in OTHER_NETWORKS)
        if name in ("span_corruption", "ten_percent", "small_clean_data", "without_image2text"):
            assert configuration.value("PAIRS") != pairs
    load(first["without_image2text"])
    assert configuration.value("PAIRS") == {}
    load(first["without_text2text"])
    assert configuration.value("DOCUMENTS") == {}


def test_evaluation_resolves(runs):
    load(runs[0].stages[-1])
    configuration.check("runner.evaluate")
    (evaluation,) = configuration.value("runner.evaluate.evaluations")
    assert evaluation.name == plan.Downstream().section


def test_rows_spend_equal_operations(compute):
    budget = BASE_STEPS * compute[BASE].flops_per_step
    assert compute[BASE].steps == BASE_STEPS and compute["no_pretraining"].steps == 0
    for name, found in compute.items():
        if name != "no_pretraining":
            assert abs(found.steps * found.flops_per_step - budget) <= found.flops_per_step / 2
        assert found.question_steps == QUESTION_STEPS
    # By hand: 4 groups of 8 pairs (8 + 16 tokens) and 1 document (16 + 16), forward and backward.
    configuration.load([plan.COMMON])
    config = configuration.value("loop.train.model").config
    by_hand = (
        3 * 4 * (8 * forward_flops(config, 8, 16, True) + forward_flops(config, 16, 16, False))
    )
    assert compute[BASE].flops_per_step == pytest.approx(by_hand)
    assert compute["decoder_only_tiny"].steps < BASE_STEPS < compute["without_conv_stage"].steps


def test_the_same_seed_is_given_to_every_stage_that_trains(runs):
    for run in runs:
        for stage in run.stages[:-1]:
            assert f"SEED = {run.seed}" in given(stage, "gin")
    assert [run.seed for run in runs] == [0] * 12 + [7] * 12


def test_finetuning_starts_from_the_run_s_own_pretraining(runs):
    for run in runs:
        questions = run.stages[-2]
        load(questions)
        if run.row.pretrains:
            assert configuration.value("PRETRAINED") == str(run.stages[0].folder)
            assert run.stages[0].folder.parent == run.folder
        else:
            with pytest.raises(UserError):
                configuration.value("PRETRAINED")
            assert len(run.stages) == 2
        assert configuration.value("PAIRS") == {"ablation_questions": 1}


def test_folders_of_runs_are_different(runs):
    folders = [stage.folder for run in runs for stage in run.stages[:-1]]
    assert len(set(folders)) == len(folders)


def test_rows_are_chosen_by_name_and_the_base_is_always_there():
    assert [row.name for row in chosen_rows(["two_blocks"])] == [BASE, "two_blocks"]
    assert chosen_rows([]) == ROWS
    with pytest.raises(UserError, match="no row 'three_blocks'; its rows are base, no_pretraining"):
        chosen_rows(["three_blocks"])


def test_data_that_is_not_there_is_a_sentence(tmp_path, compute):
    with pytest.raises(UserError, match="simvlm prepare ablation"):
        plan.settings(compute, plan.Downstream(), tmp_path / "summary.json")
