from pathlib import Path

import pytest

import simvlm_jax
from simvlm_jax import gin_files
from simvlm_jax.errors import UserError


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "simvlm_jax"
    folder.mkdir()
    monkeypatch.setattr(simvlm_jax, "__file__", str(folder / "__init__.py"))
    return folder


def test_the_real_folder_holds_the_models():
    assert (Path(gin_files.gin_root()) / "models").is_dir()


def test_beside_the_package_as_in_the_repository(package):
    (package.parent / "gin").mkdir()
    assert gin_files.gin_root() == str(package.parent / "gin")


def test_inside_the_package_as_in_a_plain_install(package):
    (package.parent / "gin").mkdir()  # somebody else's
    (package / "gin").mkdir()
    assert gin_files.gin_root() == str(package / "gin")


def test_nowhere(package):
    with pytest.raises(UserError, match="no folder of gin files"):
        gin_files.gin_root()
