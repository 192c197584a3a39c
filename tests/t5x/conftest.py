import pytest

import engine
from simvlm_jax.data.testing_records import make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("t5x_data"))


@pytest.fixture(scope="session")
def pretrained(data, tmp_path_factory):
    """A run of four steps under T5X, evaluated after each second one; not to be written to."""
    folder = tmp_path_factory.mktemp("t5x_run")
    engine.pretrain(data, folder, 4)
    return folder
