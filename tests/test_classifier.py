"""The classifier as a model object: loss, microbatches, freezing, what a folder says of it."""

import json

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

import t5x_stand_in as t5x
from fuzz.hostile import SOME, changed_json
from models.networks import PATCHES, primitives
from simvlm_jax import classifier as classifiers
from simvlm_jax.classifier import ClassifierModel
from simvlm_jax.errors import UserError
from simvlm_jax.kinds import open_model, open_text_model
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.flops import conv_stage_flops, encoder_flops, trunk_flops
from simvlm_jax.testing import (
    random_parameters,
    shapes_of,
    tiny_classifier,
    tiny_config,
    tiny_labelled,
    tiny_labelled_groups,
    tiny_model,
)

SIZES = {**PATCHES, "encoder_layers": 1, "decoder_layers": 1, "scan_layers": False}
CONFIG = tiny_config(**SIZES)
GROUPS, CLASSES = 4, 5


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile many tiny networks, which takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that were compiled so would round otherwise in later tests


def made(**options):
    options = {"nominal_batch_size": GROUPS, **options}
    model = tiny_classifier(CONFIG, CLASSES, **options)
    return model, random_parameters(CONFIG, model=model)


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def plain_losses(logits, batch, objective):
    """Loss and accuracy of every example, with a loop over its labels; None where it has none."""
    for row, labels, scores in zip(logits, batch["labels"], batch["label_scores"], strict=True):
        answers = {c: s for c, s in zip(labels, scores, strict=True) if c >= 0 and s}
        if not answers:
            yield None
            continue
        if objective == "softmax":
            log_q = row - np.log(np.exp(row).sum())
            loss = -sum(s / sum(answers.values()) * log_q[c] for c, s in answers.items())
        else:
            targets = np.array([answers.get(c, 0.0) for c in range(len(row))])
            loss = -(targets * log_sigmoid(row) + (1 - targets) * log_sigmoid(-row)).sum()
        yield loss, answers.get(int(row.argmax()), 0.0)


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_the_loss_is_the_sum_over_examples_of_both_kinds_that_have_scores(objective):
    model, params = made(objective=objective)
    groups = tiny_labelled_groups(model, GROUPS, pairs=2, documents=1)
    groups["label_scores"][1, 0] = 0  # an image that could not be decoded
    groups["document_label_scores"][3, 0] = 0
    found = []
    for prefix in ("", "document_"):
        of_kind = {n: v for n, v in groups.items() if n.startswith("document_") == bool(prefix)}
        plain = {
            name.removeprefix(prefix): leaf.reshape(-1, *leaf.shape[2:])
            for name, leaf in of_kind.items()
        }
        ids, aux = jax.jit(model.predict_batch_with_aux)(params, plain)
        assert ids.dtype == jnp.int32
        np.testing.assert_array_equal(ids, np.argmax(aux["logits"], axis=1))
        found += plain_losses(np.float64(aux["logits"]), plain, objective)
    taught = [pair for pair in found if pair]
    assert (len(found), len(taught)) == (12, 10)
    loss, metrics = jax.jit(model.eval_fn)(params, groups)
    losses, reached = np.array(taught).T
    assert float(loss) == pytest.approx(losses.sum() / 12, rel=1e-5)
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    expected = {"loss": losses.mean(), "accuracy": reached.mean(), "examples": 12}
    assert values == pytest.approx(expected, rel=1e-5)


def test_an_example_without_scores_moves_nothing():
    model, params = made()
    batch = tiny_labelled(model, 4)
    gradient = jax.jit(jax.grad(model.loss_fn, has_aux=True))
    batch["label_scores"][2] = 0
    before = gradient(params, batch, None)[0]
    batch["image"][2] = 7
    after = gradient(params, batch, None)[0]
    jax.tree.map(np.testing.assert_array_equal, before, after)
    batch["label_scores"][:] = 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient(params, batch, None)[0]))


def test_a_label_beyond_the_classes_is_no_number_and_so_not_silent():
    model, params = made()
    batch = tiny_labelled(model, 4)
    batch["labels"][0, 0] = CLASSES
    assert np.isnan(jax.jit(model.eval_fn)(params, batch)[0])


def test_summed_microbatches_equal_the_whole_batch():
    model, params = made()
    groups = tiny_labelled_groups(model, GROUPS, pairs=2, documents=1)
    (_, loss, gradient, metrics), (_, other_loss, other, other_metrics) = (
        t5x.train_step(model, params, groups, parts) for parts in (1, 4)
    )
    np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert metrics == pytest.approx(other_metrics, rel=1e-5)


def test_two_images_stay_together_in_any_part_of_a_batch():
    model, params = made(images=2)
    groups = tiny_labelled_groups(model, GROUPS, pairs=2, documents=0)
    evaluate = jax.jit(model.eval_fn)
    halves = [{name: leaf[part::2] for name, leaf in groups.items()} for part in (0, 1)]
    parts = [float(evaluate(params, half)[0]) for half in halves]
    assert sum(parts) == pytest.approx(float(evaluate(params, groups)[0]), rel=1e-5)


def test_initial_variables_have_an_axis_name_for_every_dimension():
    model, _ = made(images=2)
    params = t5x.initial_variables(model, tiny_labelled_groups(model, GROUPS, 2, 0))
    assert params["classifier"]["kernel"].shape == (2 * CONFIG.width, CLASSES)


def gradient_program(model, params, batch):
    loss = lambda params: model.loss_fn(params, batch, None)[0]  # noqa: E731
    return primitives(jax.grad(loss), params)


def test_a_frozen_trunk_has_no_backward_pass_and_no_dropout():
    model, params = made(features="encoder_mean", frozen_trunk=True)
    batch = tiny_labelled(model, 4)
    gradient = jax.jit(jax.grad(model.loss_fn, has_aux=True))(params, batch, None)[0]
    moved = {name for name, part in gradient.items() if np.any(jax.tree.leaves(part)[0])}
    assert moved == {"classifier"}
    # The backward pass of a table's look-up adds into the table.
    assert "scatter-add" not in gradient_program(model, params, batch)
    assert "scatter-add" in gradient_program(made(features="encoder_mean")[0], params, batch)
    shaken = tiny_config(**SIZES, dropout_rate=0.5)
    for frozen in (True, False):
        shaky = tiny_classifier(shaken, CLASSES, features="encoder_mean", frozen_trunk=frozen)
        losses = [jax.jit(shaky.loss_fn)(params, batch, jax.random.key(i))[0] for i in (0, 1)]
        assert (losses[0] == losses[1]) == frozen


def test_the_encoder_s_mean_does_not_run_the_decoder():
    model, params = made(features="encoder_mean")
    del params["decoder"], params["decoder_norm"]
    batch = tiny_labelled(model, 2)
    jax.eval_shape(model.predict_batch, params, batch)
    with pytest.raises(flax.errors.ScopeParamNotFoundError):
        jax.eval_shape(made()[0].predict_batch, params, batch)


def test_operations_are_those_of_what_is_run():
    shapes = shapes_of(tiny_labelled_groups(made()[0], GROUPS, pairs=2, documents=1))
    head = 3 * 2 * CONFIG.width * CLASSES
    trunks = [trunk_flops(CONFIG, 4, 5, with_image) for with_image in (True, False)]
    expected = GROUPS * (2 * (3 * trunks[0] + head) + 3 * trunks[1] + head)
    assert made()[0].train_flops(shapes) == expected
    pairs = {name: shape for name, shape in shapes.items() if not name.startswith("document_")}
    assert made(images=2)[0].train_flops(pairs) == GROUPS * 2 * 2 * (3 * trunks[0] + head)
    probe = made(features="encoder_mean", frozen_trunk=True)[0].train_flops(pairs)
    assert probe == GROUPS * 2 * (encoder_flops(CONFIG, 4, True) + head)
    assert conv_stage_flops(CONFIG) < encoder_flops(CONFIG, 4, True) < trunks[0]


VALUES = tiny_classifier(CONFIG, CLASSES, images=2, objective="sigmoid").to_json()


def test_a_folder_s_configuration_opens_as_what_it_is():
    again = open_model(json.loads(json.dumps(VALUES)))
    assert isinstance(again, ClassifierModel) and again.to_json() == VALUES
    assert (again.config, again.classes, again.images) == (CONFIG, CLASSES, 2)
    text = open_model(tiny_model(CONFIG, beams=2).to_json(), beams=3)
    assert isinstance(text, PrefixLMModel) and text.decoding["beams"] == 3
    with pytest.raises(UserError, match="runs/x is a classifier of 5 classes and writes no text"):
        open_text_model(VALUES, "runs/x")


@SOME
@given(changed_json(VALUES))
@example(VALUES | {"classes": 1 << 60})
@example(VALUES | {"classes": 5.0})
@example(VALUES | {"classes": True})
@example(VALUES | {"images": True})
@example(VALUES | {"features": [], "kind": {}})
@example(VALUES | {"frozen_trunk": "no"})
def test_a_stranger_s_configuration_opens_or_is_refused(values):
    if not isinstance(values, dict):
        return
    try:
        model = open_model(values)
    except UserError:
        return
    if "kind" in values:
        assert isinstance(model, ClassifierModel) and 2 <= model.classes <= classifiers.MOST_CLASSES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 1}, "classes=1 must be a whole number from 2 to"),
        ({"features": "mean"}, "features='mean' of a classifier must be one of decoder, encoder_m"),
        ({"images": 3}, "images=3 of a classifier must be one of 1, 2"),
        ({"objective": "mse"}, "objective='mse' of a classifier must be one of softmax, sigmoid"),
        (
            {"features": "encoder_mean", "config": tiny_config(decoder_only=True)},
            "needs an encoder, and this network is decoder_only",
        ),
    ],
)
def test_options_that_make_no_classifier_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        ClassifierModel(**{"config": CONFIG, "classes": CLASSES, **options})


def test_batches_that_do_not_fit_are_refused():
    model, params = made(images=2)
    groups = tiny_labelled_groups(model, GROUPS, pairs=1, documents=1)
    with pytest.raises(UserError, match="two images needs 'image' in every batch"):
        model.eval_fn(params, groups)
    with pytest.raises(UserError, match="two images needs 'second_image' in every batch"):
        model.eval_fn(params, tiny_labelled(made()[0], 2))
    with pytest.raises(UserError, match=r"A batch needs 'labels'; this one has \['image'\]"):
        model.eval_fn(params, {"image": groups["image"]})
