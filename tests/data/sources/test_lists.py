import pytest

from simvlm_jax.data.sources.lists import expand
from simvlm_jax.errors import UserError


def test_paths_and_patterns_start_at_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    for name in ("b/2.txt", "b/1.txt", "a.txt", "b/c/3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(patterns):
        return [path.removeprefix(f"{tmp_path}/") for path in expand(patterns)]

    assert names("a.txt") == ["a.txt"]
    assert names(["b/*.txt", "a.txt"]) == ["b/1.txt", "b/2.txt", "a.txt"]
    assert names("b/**/*.txt") == ["b/1.txt", "b/2.txt", "b/c/3.txt"]
    assert names(str(tmp_path / "a.txt")) == ["a.txt"]
    with pytest.raises(UserError, match=r"no file .*absent-\*\.txt"):
        expand(["a.txt", "absent-*.txt"])
