"""A classifier through the loop: it learns, resumes, and starts from a PrefixLM run."""

import jax
import numpy as np
import pytest

from simvlm_jax.testing import (
    random_parameters,
    shapes_of,
    tiny_classifier,
    tiny_config,
    tiny_labelled_groups,
)
from simvlm_jax.training import loop, optimizers
from simvlm_jax.training.keeping import KeepRules
from standin import losses, same

CONFIG = tiny_config(
    conv_layers=(),
    image_size=(8, 12),
    patch_size=4,
    encoder_layers=1,
    decoder_layers=1,
    scan_layers=False,
    dropout_rate=0.1,
    stochastic_depth_rate=0.1,
)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """To compile these steps takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that were compiled so would round otherwise in later tests


class Examples:
    """Always the same eight examples, four groups of a pair and a document."""

    def __init__(self, model):
        documents = 2 - model.images
        self.groups = tiny_labelled_groups(model, 4, pairs=2 - documents, documents=documents)
        self.input_shapes = shapes_of(self.groups)
        self.input_types = {name: leaf.dtype for name, leaf in self.groups.items()}

    def batches(self, start_step, groups):
        while True:
            yield {name: leaf[np.array(groups)] for name, leaf in self.groups.items()}

    def report(self, step):
        return {}


def train(folder, model, steps, initial_params=None):
    optimizer = optimizers.adamw(1e-2, total_steps=40, weight_decay=0.1)
    return loop.train(
        model,
        optimizer,
        Examples(model),
        folder,
        steps,
        checkpoint_every=20,
        log_every=10,
        keep=KeepRules(),
        initial_params=initial_params,
        tensorboard=False,
    )


@pytest.mark.parametrize("images", [1, 2])
def test_it_learns_examples_by_heart_and_resumes_to_the_bit(tmp_path, images):
    model = tiny_classifier(CONFIG, images=images, nominal_batch_size=4)
    whole = train(tmp_path / "whole", model, 40)
    told = losses(tmp_path / "whole")
    metrics = jax.jit(model.eval_fn)(whole.params, Examples(model).groups)[1]
    assert float(metrics["accuracy"].compute()) == 1.0
    assert told[40] < 0.5 * told[1]
    if images == 1:
        train(tmp_path / "parts", model, 20)
        same(train(tmp_path / "parts", model, 40), whole)


def test_a_linear_probe_moves_the_classifier_alone(tmp_path):
    options = dict(features="encoder_mean", frozen_trunk=True, nominal_batch_size=4)
    model = tiny_classifier(CONFIG, **options)
    start = random_parameters(CONFIG, model=model)
    state = train(tmp_path, model, 20, start)  # weight decay would move all, were it not frozen
    bits = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf).view(np.uint32), tree)  # noqa: E731
    trunk = lambda tree: {name: part for name, part in tree.items() if name != "classifier"}  # noqa: E731
    same(bits(trunk(state.params)), bits(trunk(start)))
    assert np.any(state.params["classifier"]["kernel"] != start["classifier"]["kernel"])
    told = losses(tmp_path)
    assert told[20] < told[1]
