"""Starting from a run: equal where nothing changes, fitted where size or layout do."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError
from simvlm_jax.models.layouts import scan
from simvlm_jax.models.resize import resize_image_parameters
from simvlm_jax.testing import tiny_classifier, tiny_labelled, tiny_model
from simvlm_jax.training.pretrained import pretrained_params
from trained_folder import CONFIG, STEP, make_model_dir, parameters


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile many tiny networks, which takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # programs that were compiled so would round otherwise in later tests


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    run, data = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("data")
    make_model_dir(run)
    shutil.copy(run / "vocabulary.model", data)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SIMVLM_DATA_DIR", str(data))
        # What training puts there: the pieces and, after them, the sentinels.
        (run / "vocabulary.model").write_bytes(default_vocabulary().sp_model)
    return run, data


@pytest.fixture
def run(folders, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folders[1]))
    return folders[0]


def shapes(tree):
    return jax.tree.map(np.shape, tree)


def wanted_shapes(config):
    variables = lambda: tiny_model(config).get_initial_variables(jax.random.key(0), {})  # noqa: E731
    return shapes(jax.eval_shape(variables)["params"])


def test_the_same_model_gets_the_very_numbers(run):
    found = pretrained_params(run, tiny_model(CONFIG))
    assert shapes(found) == wanted_shapes(CONFIG)
    jax.tree.map(np.testing.assert_array_equal, found, parameters())


@pytest.mark.parametrize("scanned", [True, False])
def test_another_image_size_and_layout_get_fitted_parameters(run, scanned):
    config = dataclasses.replace(CONFIG, image_size=(64, 64), scan_layers=scanned)
    found = pretrained_params(run, tiny_model(config))
    assert shapes(found) == wanted_shapes(config)
    found, before = scan(found), parameters()
    table, old = found["encoder"]["scanned"]["image_bias"]["table"], before["encoder"]["scanned"]
    # Grids of 2 x 3 and 4 x 4: the middle of the offsets, each patch on itself, stays.
    middle = np.asarray(old["image_bias"]["table"])[..., 1, 2]
    np.testing.assert_allclose(table[..., 3, 3], middle, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found["decoder"], before["decoder"])


def test_another_vocabulary_or_no_run_is_refused(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folders[1]))
    with pytest.raises(UserError, match="no folder"):
        pretrained_params(tmp_path / "nothing", tiny_model(CONFIG))
    with pytest.raises(UserError, match="holds no model_config.json"):
        pretrained_params(tmp_path, tiny_model(CONFIG))
    (tmp_path / "vocabulary.model").write_bytes(b"another")
    (tmp_path / "model_config.json").write_text("{}")
    with pytest.raises(UserError, match="vocabulary of the model in .* is not the one"):
        pretrained_params(tmp_path, tiny_model(CONFIG))


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def trunk(params):
    return {name: part for name, part in params.items() if name != "classifier"}


def count(tree):
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


def test_a_classifier_starts_with_the_trunk_and_a_head_of_its_own_and_says_so(run, capsys):
    model = tiny_classifier(CONFIG, classes=3)
    found = pretrained_params(run, model, seed=5)
    equal(trunk(found), parameters())
    fresh = model.get_initial_variables(jax.random.key(5), {})["params"]["classifier"]
    kernel = found["classifier"]["kernel"]
    np.testing.assert_allclose(kernel, fresh["kernel"], rtol=1e-5)  # compiled apart
    assert np.any(kernel != pretrained_params(run, model)["classifier"]["kernel"])
    arrays, size = len(jax.tree.leaves(parameters())), count(parameters())
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"{run}, step {STEP}: loaded {arrays} of {arrays + 2} arrays, {size:,} of {size + 51:,} "
        "parameters",
        "  initialised anew: classifier/bias, classifier/kernel (51 parameters)",
    ]


def test_finetuning_may_add_dropout_depth_and_a_larger_image(run, capsys):
    """The paper's section 4.1, from a run without; the tables are interpolated, nothing else."""
    changes = dict(image_size=(64, 64), dropout_rate=0.1, stochastic_depth_rate=0.1)
    config = dataclasses.replace(CONFIG, **changes, scan_layers=False)
    model = tiny_classifier(config)
    found = pretrained_params(run, model)
    resized = resize_image_parameters(parameters(), CONFIG, config)
    equal(scan(trunk(found)), resized)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  interpolated from (2, 3) to (4, 4) patches: encoder/layer_*/image_bias/table, "
        "image_positions",
        "  initialised anew: classifier/bias, classifier/kernel (85 parameters)",
        "  settings that changed: image_size (64, 64) (was (32, 48)), dropout_rate 0.1 (was 0.0), "
        "stochastic_depth_rate 0.1 (was 0.0), scan_layers False (was True)",
    ]
    batch = tiny_labelled(model, 2)
    loss = jax.jit(model.loss_fn)
    losses = [loss(found, batch, key)[0] for key in (None, jax.random.key(0))]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mlp_width": 32}, r"has \S*bias of shape \(1, 24\), and the model \(1, 32\) \(and"),
        ({"conv_layers": (1, 1)}, "has no image_embedding/.*, which the model has"),
        (
            {"encoder_style": "t5"},
            r"has no encoder/scanned/mlp/gate/kernel, which the model",
        ),
        ({"decoder_layers": 2}, r"has decoder/scanned/\S+ of shape \(1, 16\), and the model \(2"),
        ({"conv_layers": (), "patch_size": 16}, "is of another network: it has"),
    ],
)
def test_a_run_of_another_network_is_refused(run, changes, words):
    model = tiny_classifier(dataclasses.replace(CONFIG, **changes))
    with pytest.raises(UserError, match=words) as raised:
        pretrained_params(run, model)
    assert "take the model file it was trained with" in str(raised.value)


def test_what_may_differ_can_be_named(run, capsys):
    model = tiny_model(dataclasses.replace(CONFIG, text_length=20))
    with pytest.raises(UserError, match="text_positions of shape"):
        pretrained_params(run, model)
    found = pretrained_params(run, model, may_differ=["text_positions"])
    assert found["text_positions"].shape == (20, 16)
    told = capsys.readouterr().err
    assert "initialised anew: text_positions (320 parameters)" in told
    assert "ignored: text_positions (256 parameters)" in told
    with pytest.raises(UserError, match="may_differ='\\[' is no regular expression"):
        pretrained_params(run, model, may_differ=["["])


def test_a_classifier_s_run_gives_its_trunk_and_a_head_that_fits(run, tmp_path, capsys):
    own = tiny_classifier(CONFIG, classes=3)
    make_model_dir(tmp_path, model=own)
    shutil.copy(run / "vocabulary.model", tmp_path)
    before = parameters(model=own)
    equal(pretrained_params(tmp_path, own), before)
    assert "initialised" not in capsys.readouterr().err
    text = pretrained_params(tmp_path, tiny_model(CONFIG))
    equal(text, trunk(before))
    assert "ignored: classifier/bias, classifier/kernel (51 para" in capsys.readouterr().err
    other = pretrained_params(tmp_path, tiny_classifier(CONFIG, classes=4))
    equal(trunk(other), trunk(before))
    assert other["classifier"]["kernel"].shape == (16, 4)
