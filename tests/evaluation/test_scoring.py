"""Scorers over records: the right fields reach them, and what has no reference is not scored."""

import pytest

from simvlm_jax.evaluation import scoring

COCO = [{"references": ["a red cat", "a cat"]}, {"references": ["two blue dogs"]}]


def test_captions_are_scored_by_all_references():
    found = scoring.captions(["a cat", "two dogs"], COCO, "references")
    assert found["exact_match"] == 0.5 and "warning_sameness" not in found
    assert scoring.captions(["a cat"], [{"references": []}], "references") == {}


def test_the_same_caption_for_all_is_told():
    records = [{"references": [f"thing number {n}"]} for n in range(5)]
    assert "a dog" in scoring.captions(["a dog"] * 5, records, "references")["warning_sameness"]


def test_vqa_joins_answers_and_types():
    kinds = {"answer_type": "other", "question_type": "what"}
    records = [
        {"question_id": 1, "answers": ["red"] * 10, **kinds},
        {"question_id": 2, "answers": ["one"] * 5 + ["two"] * 5, **kinds},
    ]
    found = scoring.vqa(["red", "3"], records)
    assert found["accuracy"] == 0.5 and found["accuracy_by_answer_type/other"] == 0.5
    assert scoring.vqa(["red"], [{"question_id": 1, "answers": [], **kinds}]) == {}


def test_examples_without_a_label_are_left_out():
    records = [{"label": "yes"}, {"label": ""}, {"label": "no"}]
    found = scoring.classes(["yes", "yes", "yes"], records)
    assert found["accuracy"] == 0.5 and found["accuracy_by_class/no"] == 0
    assert scoring.classes(["yes"], [{"label": ""}]) == {}


def test_nlvr2_glue_and_nocaps():
    pairs = [("dev-1-0-0", "True"), ("dev-1-1-0", "False"), ("dev-2-0-0", "True")]
    records = [{"identifier": name, "label": label} for name, label in pairs]
    found = scoring.nlvr2(["True", "True", "True"], records)
    assert found == {"accuracy": pytest.approx(2 / 3), "consistency": 0.5}
    found = scoring.glue(["1", "1", "0"], [{"label": n} for n in (1, 0, 0)], "mrpc")
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    assert scoring.glue(["1"], [{"label": -1}], "mrpc") == {}
    domains = ("in-domain", "out-domain")
    records = [{"image_id": n, "domain": d, **COCO[n]} for n, d in enumerate(domains)]
    found = scoring.nocaps(["a red cat", "a bird"], records)
    assert found["cider_in_domain"] > found["cider_out_domain"] == 0


def test_answers_by_kind():
    records = [{"answer": "yes", "kind": "a"}, {"answer": "no", "kind": "b"}]
    found = scoring.answers(["yes", "yes"], records, kind="kind")
    wanted = {"accuracy": 0.5, "accuracy_a": 1.0, "accuracy_b": 0.0, "most_frequent_share": 1.0}
    assert found == wanted
