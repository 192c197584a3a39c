"""What a result says of how it was made."""

import subprocess

from simvlm_jax.evaluation import provenance
from simvlm_jax.evaluation.provenance import commit


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def test_the_commit_is_git_s_and_changes_are_told(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    assert commit(package) == "unknown"
    git(tmp_path, "init")
    (package / "__init__.py").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    revision = commit(package)
    assert len(revision) == 40 and int(revision, 16)
    (package / "__init__.py").write_text("1")
    assert commit(package) == f"{revision} + changes"


def test_a_package_in_an_environment_inside_a_checkout_has_no_commit(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "README").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    package = tmp_path / "env" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert commit(package) == "unknown"


def test_versions_of_scorers_are_told():
    assert {"pycocoevalcap", "sacrebleu"} <= set(provenance.scorer_versions())
