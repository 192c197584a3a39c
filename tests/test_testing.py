import jax
import numpy as np
import pytest

from simvlm_jax.testing import (
    EOS,
    random_parameters,
    shapes_of,
    tiny_batch,
    tiny_config,
    tiny_groups,
    tiny_model,
)


def test_parameters_are_random_everywhere_and_reproducible():
    params = random_parameters(tiny_config(), seed=3)
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == np.float32
        assert len(np.unique(leaf)) == leaf.size
    again = random_parameters(tiny_config(), seed=3)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    other = random_parameters(tiny_config(), seed=4)
    assert (other["token_embedding"] != params["token_embedding"]).all()


def test_batches_are_shifted_padded_and_end_in_eos():
    config = tiny_config()
    batch = tiny_batch(config, batch=4, prefix=6, length=5)
    assert shapes_of(batch) == {
        "image": (4, 32, 48, 3),
        "encoder_input_tokens": (4, 6),
        "decoder_input_tokens": (4, 5),
        "decoder_target_tokens": (4, 5),
        "decoder_loss_weights": (4, 5),
    }
    assert np.abs(batch["image"]).max() <= 1
    for i, targets in enumerate(batch["decoder_target_tokens"]):
        length = np.count_nonzero(targets)
        assert targets[length - 1] == EOS
        assert not targets[length:].any()
        inputs = batch["decoder_input_tokens"][i]
        np.testing.assert_array_equal(inputs[:length], [0, *targets[: length - 1]])
        assert batch["decoder_loss_weights"][i].sum() == length
    prefixes = np.count_nonzero(batch["encoder_input_tokens"], axis=1)
    assert prefixes[0] == 6 and prefixes[-1] == 0
    assert "image" not in tiny_batch(config, with_image=False)


def test_groups_hold_exact_counts():
    shapes = shapes_of(tiny_groups(tiny_config(), groups=3, pairs=2, documents=1))
    assert shapes["image"] == (3, 2, 32, 48, 3)
    assert shapes["document_decoder_target_tokens"] == (3, 1, 5)
    assert "document_image" not in shapes
    assert {shape[0] for shape in shapes.values()} == {3}
    assert not any("document" in name for name in tiny_groups(tiny_config(), documents=0))


@pytest.mark.parametrize("decoder_only", [False, True])
def test_the_tiny_model_has_the_same_structure_as_its_parameters(decoder_only):
    config = tiny_config(decoder_only=decoder_only)
    shapes = jax.eval_shape(
        lambda: tiny_model(config).get_initial_variables(jax.random.key(0), {})
    )["params"]
    params = random_parameters(config)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
