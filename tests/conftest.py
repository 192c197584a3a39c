import pytest

from simvlm_jax.data.testing_records import make_data


@pytest.fixture(scope="session")
def made_data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data_folder(made_data, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(made_data))
    return made_data
