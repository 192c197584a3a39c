import contextlib
import importlib
import io
import types

import numpy as np
import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import java_captions
from simvlm_jax.evaluation.captions import cider_scores, score_captions
from simvlm_jax.evaluation.java_captions import (
    meteor_scores,
    score_with_java,
    spice_scores,
    why_no_meteor,
    why_no_spice,
)

with_java = pytest.mark.skipif(
    bool(why_no_meteor()), reason=f"COCO's own evaluation could not be run: {why_no_meteor()}"
)
WORDS = "a the man's woman dog isn't riding can't t-shirt (red) $5.00 10% U.S. grey , . 2nd".split()


def made_captions(count, seed=0):
    """Random captions with one to five references, some of them close."""
    generator = np.random.default_rng(seed)

    def caption():
        return " ".join(generator.choice(WORDS, generator.integers(1, 9)))

    references = [[caption() for _ in range(generator.integers(1, 6))] for _ in range(count)]
    close = generator.random(count) < 0.7
    predictions = [t[-1] + "." if near else caption() for t, near in zip(references, close)]  # noqa: B905
    return predictions, references


@pytest.fixture(scope="module")
def program():
    """One METEOR for all tests: it reads its paraphrases for seconds when it starts."""
    made = pytest.importorskip("pycocoevalcap.meteor.meteor").Meteor()
    made.lock = java_captions.NeverLocked()  # else a test that fails makes the next one wait
    return made


@pytest.fixture
def one_meteor(program, monkeypatch):
    for module in ("pycocoevalcap.meteor.meteor", "pycocoevalcap.eval"):
        monkeypatch.setattr(importlib.import_module(module), "Meteor", lambda: program)


class Captions:
    """As much of pycocotools' class as COCO's evaluation uses."""

    def __init__(self, texts):
        self.imgToAnns = {n: [{"caption": text} for text in each] for n, each in enumerate(texts)}

    def getImgIds(self):  # noqa: N802
        return list(self.imgToAnns)


def official(monkeypatch, predictions, references):
    """COCOEvalCap from end to end, SPICE aside, which would download its parser."""
    module = pytest.importorskip("pycocoevalcap.eval")

    class NoSpice:
        def compute_score(self, wanted, given):
            return 0.0, [0.0] * len(given)

        def method(self):
            return "nothing"

    monkeypatch.setattr(module, "Spice", NoSpice)
    run = module.COCOEvalCap(Captions(references), Captions([[text] for text in predictions]))
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
    return run


@with_java
def test_all_numbers_equal_the_official_evaluation_from_end_to_end(monkeypatch, one_meteor):
    predictions, references = made_captions(300)
    run = official(monkeypatch, predictions, references)
    found = score_captions(predictions, references)
    expected = {f"bleu_{n}": run.eval[f"Bleu_{n}"] for n in range(1, 5)}
    expected |= {"rouge_l": run.eval["ROUGE_L"], "cider": run.eval["CIDEr"]}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    each = [run.imgToEval[number]["CIDEr"] for number in range(300)]
    np.testing.assert_allclose(cider_scores(predictions, references), each, atol=1e-12)
    whole, meteors = meteor_scores(predictions, references)
    assert whole == pytest.approx(run.eval["METEOR"], abs=1e-12)
    each = [run.imgToEval[number]["METEOR"] for number in range(300)]
    np.testing.assert_allclose(meteors, each, atol=1e-12)


@with_java
def test_meteor_of_equal_of_empty_and_of_strange_captions(one_meteor):
    _, each = meteor_scores(["a dog", "", "a ||| b\n| c", "\ud800"], ["a dog", "a cat", "d", "e"])
    assert each.tolist() == [1, 0, 0, 0]


def test_without_java_there_is_one_sentence_each(monkeypatch):
    monkeypatch.setattr(java_captions.shutil, "which", lambda name: None)
    metrics, sentences = score_with_java(["a dog"], ["a dog"])
    assert metrics == {} and [s.split()[0] for s in sentences] == ["METEOR", "SPICE"]
    assert all("there is no java here" in sentence for sentence in sentences)
    for scores in (meteor_scores, spice_scores):
        with pytest.raises(UserError, match="no java here"):
            scores(["a dog"], ["a dog"])


def test_spice_downloads_nothing_unasked(monkeypatch):
    monkeypatch.setattr(java_captions.shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(java_captions, "SPICE_PARSER", "spice/lib/absent.jar")
    monkeypatch.setattr(java_captions, "quote", str)  # wherever the tests are run
    assert why_no_meteor() == ""
    assert "has to be downloaded once" in why_no_spice()
    with pytest.raises(UserError, match="get_stanford_models"):
        spice_scores(["a dog"], ["a dog"])


def test_a_folder_in_which_meteor_would_not_find_its_data_is_named(monkeypatch):
    found = types.SimpleNamespace(submodule_search_locations=["/my files/pycocoevalcap"])
    monkeypatch.setattr(java_captions.shutil, "which", lambda name: "/usr/bin/java")
    monkeypatch.setattr(java_captions.importlib.util, "find_spec", lambda name: found)
    assert "such as /my files/pycocoevalcap" in why_no_meteor()
    found.submodule_search_locations = ["/files/pycocoevalcap"]
    assert why_no_meteor() == ""


def test_a_java_program_that_fails_is_a_sentence(monkeypatch, tmp_path):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_captions, "quote", str)
    with pytest.raises(UserError, match="The Java program of METEOR failed"):
        meteor_scores(["a dog"], ["a dog"])
