import numpy as np
import pytest

from simvlm_jax.data.preparing import choosing, examining
from simvlm_jax.data.preparing.choosing import Findings
from simvlm_jax.data.preparing.examining import DUPLICATE, FINDING, KEPT, REFUSED
from simvlm_jax.data.preparing.work import read_result, run_job


def made(images, texts=None, outcomes=None):
    rows = np.zeros(len(images), FINDING)
    rows["image"], rows["text"] = images, texts or 0
    rows["outcome"], rows["cause"] = outcomes or KEPT, -1
    return Findings(rows, [])


@pytest.mark.parametrize("duplicates", choosing.DUPLICATES)
def test_only_the_first_of_equals_stays(duplicates):
    generator = np.random.default_rng(0)
    images, texts = generator.integers(0, 12, (2, 60)).tolist()
    outcomes = generator.choice([KEPT, REFUSED], 60).tolist()
    findings = made(images, texts, outcomes)
    choosing.mark_duplicates(findings, duplicates)
    seen, expected = set(), []
    for what, outcome in zip(zip(images, texts, strict=True), outcomes, strict=True):
        key = what[0] if duplicates == "image" else what
        if outcome == KEPT and key in seen and duplicates != "keep":
            outcome = DUPLICATE
        if outcome == KEPT:
            seen.add(key)
        expected.append(outcome)
    assert findings.rows["outcome"].tolist() == expected
    assert (DUPLICATE in expected) == (duplicates != "keep")
    assert findings.counts()["duplicate"] == expected.count(DUPLICATE)


def test_causes_are_counted():
    findings = Findings(np.zeros(4, FINDING), ["rare", "frequent"])
    findings.rows["cause"] = [1, 0, 1, -1]
    assert findings.counts_by_cause() == {"frequent": 2, "rare": 1}


def test_equal_images_stay_on_one_side():
    images = np.random.default_rng(1).integers(0, 2**63, 4000).tolist()
    chosen = choosing.split(made(images + images), "train", 0.25, seed=3)
    sides = {name: {images[i % 4000] for i in indices} for name, indices in chosen.items()}
    assert not sides["train"] & sides["validation"]
    assert sorted(np.concatenate(list(chosen.values())).tolist()) == list(range(8000))
    assert 0.22 < len(sides["validation"]) / 4000 < 0.28
    other = choosing.split(made(images), "train", 0.25, seed=4)["validation"]
    assert set(other.tolist()) != {i for i in chosen["validation"].tolist() if i < 4000}


def test_nothing_refused_gets_into_a_split():
    chosen = choosing.split(made([1, 2, 3], outcomes=[KEPT, REFUSED, KEPT]), "main", 0.0, 0)
    assert {name: indices.tolist() for name, indices in chosen.items()} == {"main": [0, 2]}


def test_mixing_is_splitmix():
    # The first outputs of the public SplitMix64 generator from state 0.
    assert choosing.mixed(np.array([0], np.uint64), 0)[0] == 0xE220A8397B1DCDAF
    assert choosing.mixed(np.array([0], np.uint64), 1)[0] == 0x6E789E6AA1B965F4


def test_findings_of_parts_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "PART", 2)
    causes = [["a"], ["b", "a"], []]
    parts = [made([0, 1]), made([2, 3]), made([4])]
    parts[0].rows["cause"] = [0, -1]
    parts[1].rows["cause"] = [0, 1]

    class Packed(examining.Examination):
        def open(self):
            pass

        def run(self, part):
            return examining.pack(parts[part].rows, causes[part])

    run_job(Packed(None, None, "", 5), tmp_path, 1, lambda *_: None)
    assert read_result(tmp_path, 2) is not None
    found = choosing.gather(tmp_path, 5)
    assert found.rows["image"].tolist() == [0, 1, 2, 3, 4]
    named = [found.causes[n] if n >= 0 else "" for n in found.rows["cause"]]
    assert named == ["a", "", "b", "a", ""]
