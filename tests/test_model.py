import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import t5x_stand_in as t5x
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel, Sum, split_streams
from simvlm_jax.models.flops import forward_flops
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.testing import (
    random_parameters,
    shapes_of,
    tiny_batch,
    tiny_config,
    tiny_groups,
    tiny_model,
)

CONFIG = tiny_config(
    conv_layers=(),
    image_size=(4, 8),
    patch_size=4,
    width=8,
    mlp_width=12,
    vocabulary_size=12,
    encoder_layers=1,
    decoder_layers=1,
    scan_layers=False,
)
GROUPS = 4


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile many tiny networks, which takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that were compiled so would round otherwise in later tests


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def groups():
    return tiny_groups(CONFIG, GROUPS, pairs=2, documents=1)


@pytest.fixture(scope="module")
def batch():
    return tiny_batch(CONFIG)


@pytest.fixture(scope="module")
def trained(params, groups):
    """Loss, gradient and metrics over 1, 2 and 4 microbatches."""
    model = tiny_model(CONFIG, nominal_batch_size=GROUPS)
    return {n: t5x.train_step(model, params, groups, n)[1:] for n in (1, 2, 4)}


def logits_of(params, batch, config=CONFIG):
    return np.asarray(
        jax.jit(SimVLM(config).apply)(
            {"params": params},
            batch.get("image"),
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
        ),
        np.float64,
    )


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("decoder_only", [False, True], ids=["encoder_decoder", "decoder_only"])
def test_initial_variables_and_their_axes(decoder_only, groups):
    config = tiny_config(decoder_only=decoder_only, decoder_style="t5")
    shapes = jax.eval_shape(
        lambda: PrefixLMModel(config).get_initial_variables(jax.random.PRNGKey(0), {})
    )
    t5x.check_axes(shapes["params"], shapes["params_axes"])
    scanned = shapes["params_axes"]["decoder"]["scanned"]["mlp"]["in"]["kernel_axes"]
    assert scanned.names == ("layers", "embed", "mlp")


def test_initial_variables_as_t5x_asks_for_them(groups, batch):
    model = tiny_model(CONFIG)
    of_training = t5x.initial_variables(model, groups)
    of_evaluation = t5x.initial_variables(model, batch, with_types=False)
    for a, b in zip(jax.tree.leaves(of_training), jax.tree.leaves(of_evaluation), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(of_training["token_embedding"]).std() > 0


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"\(8, 8, 3\).*\(4, 8, 3\)"):
        tiny_model(CONFIG).get_initial_variables(jax.random.key(0), {"image": (2, 3, 8, 8, 3)})


@pytest.mark.parametrize("microbatches", [2, 4])
def test_summed_microbatches_equal_the_whole_batch(trained, microbatches):
    loss, gradient, metrics = trained[1]
    other_loss, other, other_metrics = trained[microbatches]
    np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert metrics == pytest.approx(other_metrics, rel=1e-5)


def test_loss_is_the_token_sum_over_all_examples_and_metrics_are_per_token(params, trained, groups):
    loss, _, metrics = trained[1]
    total = tokens = correct = 0.0
    for stream in split_streams(groups):
        chances = log_softmax(logits_of(params, stream))
        targets = np.asarray(stream["decoder_target_tokens"])
        for example, position in zip(*np.nonzero(targets), strict=True):
            row = chances[example, position]
            total -= row[targets[example, position]]
            correct += row.argmax() == targets[example, position]
            tokens += 1
    assert float(loss) == pytest.approx(total / (GROUPS * 3), rel=1e-5)
    expected = dict(loss=total / tokens, accuracy=correct / tokens, tokens=tokens, examples=12)
    assert metrics == pytest.approx(expected | {"learning_rate": 0.0}, rel=1e-5)


def test_groups_say_nothing_that_plain_examples_do_not(params, batch):
    """[G, M, ...] is [G * M, ...]; the constant follows the nominal size."""
    grouped = {name: leaf[:, None] for name, leaf in batch.items()}
    plain, _ = jax.jit(tiny_model(CONFIG, nominal_batch_size=3).eval_fn)(params, batch)
    as_groups, _ = jax.jit(tiny_model(CONFIG, nominal_batch_size=6).eval_fn)(params, grouped)
    assert float(plain) == pytest.approx(2 * float(as_groups), rel=1e-5)


def test_documents_never_see_the_images_beside_them(params, groups):
    evaluate = jax.jit(tiny_model(CONFIG).eval_fn)
    only_documents = {k: v for k, v in groups.items() if k.startswith("document_")}
    only_pairs = {k: v for k, v in groups.items() if k not in only_documents}
    losses = [evaluate(params, b)[1]["loss"] for b in (only_pairs, only_documents, groups)]
    assert float(losses[0].total + losses[1].total) == pytest.approx(float(losses[2].total))
    assert float(losses[0].count + losses[1].count) == float(losses[2].count)


def test_a_step_downhill_lowers_the_loss(params, groups, trained):
    model = tiny_model(CONFIG, nominal_batch_size=GROUPS)
    gradient = trained[1][1]
    stepped = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    assert jax.jit(model.eval_fn)(stepped, groups)[0] < trained[1][0]


def test_dropout_needs_a_key_and_differs_between_streams(params, batch):
    config = tiny_config(**CONFIG.to_json() | {"dropout_rate": 0.5})
    loss = jax.jit(tiny_model(config).loss_fn)
    without = loss(params, batch, None)[0]
    with_key = [loss(params, batch, jax.random.key(i))[0] for i in (0, 0, 1)]
    assert with_key[0] == with_key[1]
    assert len({float(without), float(with_key[0]), float(with_key[2])}) == 3
    assert float(without) == pytest.approx(float(tiny_model(CONFIG).eval_fn(params, batch)[0]))
    document = {f"document_{k}": v for k, v in batch.items()}
    both = loss(params, batch | document, jax.random.key(0))[1]["loss"].total
    assert float(both) != pytest.approx(2 * float(with_key[0] * 3), rel=1e-3)


def test_label_smoothing_and_z_loss_reach_the_loss_but_not_the_metric(params, batch):
    plain, plain_metrics = tiny_model(CONFIG).eval_fn(params, batch)
    model = tiny_model(CONFIG, label_smoothing=0.1, z_loss=1e-2)
    loss, metrics = model.eval_fn(params, batch)
    assert abs(float(loss - plain)) > 1e-3
    assert float(metrics["loss"].compute()) == float(plain_metrics["loss"].compute())


def test_a_batch_without_targets_is_refused():
    with pytest.raises(UserError, match=r"'decoder_target_tokens'.*\['image'\]"):
        split_streams({"image": np.zeros((1, 2))})


def naive_greedy(params, batch, length):
    """Re-runs the whole network for every token."""
    run = jax.jit(SimVLM(CONFIG).apply)
    size = len(batch["encoder_input_tokens"])
    tokens, done = np.zeros((size, length), np.int32), np.zeros(size, bool)
    for place in range(length):
        inputs = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
        logits = run({"params": params}, batch.get("image"), batch["encoder_input_tokens"], inputs)
        best = np.asarray(logits)[:, place, 1:].argmax(-1) + 1
        tokens[:, place] = np.where(done, 0, best)
        done |= best == 1
    return tokens


@pytest.mark.parametrize("with_image", [True, False], ids=["image", "text"])
def test_greedy_equals_rerunning_the_network_and_its_scores_are_teacher_forced(params, with_image):
    # The prefix is the prompt: it differs between the examples and is empty in the last.
    batch = tiny_batch(CONFIG, 3, length=6, with_image=with_image)
    tokens, scores, teacher_forced = t5x.infer(tiny_model(CONFIG), params, batch)
    np.testing.assert_array_equal(tokens, naive_greedy(params, batch, 6))
    np.testing.assert_allclose(scores, teacher_forced, rtol=1e-4, atol=1e-4)


def test_another_prompt_gives_another_text(params, batch):
    predict = jax.jit(tiny_model(CONFIG).predict_batch)
    words = np.arange(3, CONFIG.vocabulary_size)
    outputs = set()
    for word in words:
        prompt = np.full_like(batch["encoder_input_tokens"], word)
        outputs.add(predict(params, batch | {"encoder_input_tokens": prompt})[0].tobytes())
    assert len(outputs) > 1


def test_beams_score_what_they_return_and_beat_greedy(params, batch):
    _, greedy, _ = t5x.infer(tiny_model(CONFIG), params, batch)
    model = tiny_model(CONFIG, beams=4, length_penalty=0.0)
    tokens, scores, teacher_forced = t5x.infer(model, params, batch)
    assert tokens.shape == batch["decoder_input_tokens"].shape
    np.testing.assert_allclose(scores, teacher_forced, rtol=1e-4, atol=1e-4)
    assert (scores >= greedy - 1e-4).all()


def test_sampling_follows_its_key_and_keeps_the_likeliest_of_its_draws(params, batch):
    model = tiny_model(CONFIG, temperature=1.5)
    with pytest.raises(UserError, match="random key"):
        model.predict_batch(params, batch)
    tokens, scores, teacher_forced = t5x.infer(model, params, batch, jax.random.key(0))
    np.testing.assert_allclose(scores, teacher_forced, rtol=1e-4, atol=1e-4)
    other = jax.jit(model.predict_batch)(params, batch, jax.random.key(1))
    assert (np.asarray(other) != tokens).any()

    _, greedy, _ = t5x.infer(tiny_model(CONFIG), params, batch)
    one_choice = tiny_model(CONFIG, temperature=1.0, top_k=1)
    _, scores, _ = t5x.infer(one_choice, params, batch, jax.random.key(0))
    np.testing.assert_allclose(scores, greedy, rtol=1e-4, atol=1e-4)

    many = tiny_model(CONFIG, temperature=1.5, beams=8)
    _, best, teacher_forced = t5x.infer(many, params, batch, jax.random.key(0))
    np.testing.assert_allclose(best, teacher_forced, rtol=1e-4, atol=1e-4)


def test_json_round_trip_keeps_network_decoding_and_prompt():
    model = tiny_model(
        CONFIG, beams=3, length_penalty=1.0, prompt="a picture of", label_smoothing=0.1
    )
    values = json.loads(json.dumps(model.to_json()))
    again = PrefixLMModel.from_json(values)
    assert again.config == CONFIG
    assert again.decoding == model.decoding
    assert again.prompt == "a picture of"
    assert PrefixLMModel.from_json(values, beams=1).decoding == model.decoding | {"beams": 1}


def test_train_flops_are_three_forward_passes_of_every_example(groups):
    model = tiny_model(CONFIG)
    expected = GROUPS * (2 * forward_flops(CONFIG, 4, 5, True) + forward_flops(CONFIG, 4, 5, False))
    assert model.train_flops(shapes_of(groups)) == 3 * expected
    assert model.train_flops({"image": (1, 4, 8, 3)}) == 0


def test_sums_merge():
    total = Sum.empty().merge(Sum(jnp.float32(3))).merge(Sum(jnp.float32(4)))
    assert float(total.compute()) == 7


def test_feature_converter_is_made_as_t5x_makes_it():
    features = pytest.importorskip("simvlm_jax.data.features")
    model = tiny_model(CONFIG)
    converter = model.FEATURE_CONVERTER_CLS(pack=False, use_custom_packing_ops=False)
    assert isinstance(converter, features.SimVLMFeatureConverter)


def test_the_model_needs_neither_tensorflow_nor_t5x():
    code = (
        "import sys, simvlm_jax.model, simvlm_jax.testing;"
        "print([m for m in ('tensorflow', 'seqio', 't5x', 'gin') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
