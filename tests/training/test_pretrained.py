"""Starting from a run: equal where nothing changes, fitted where size or layout do."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError
from simvlm_jax.models.layouts import scan
from simvlm_jax.testing import tiny_model
from simvlm_jax.training.pretrained import pretrained_params
from trained_folder import CONFIG, make_model_dir, parameters


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
