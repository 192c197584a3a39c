import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.answers import most_frequent_answers, score_answers

EXAMPLES = [
    {"question": "what?", "kind": "name", "answer": "red heart"},
    {"question": "is it?", "kind": "yes_no", "answer": "no"},
    {"question": "is that?", "kind": "yes_no", "answer": "yes"},
]


def test_accuracy_over_all_and_over_each_kind():
    found = score_answers(["Red  heart", "yes", "yes"], EXAMPLES, kind="kind")
    assert found == {
        "accuracy": pytest.approx(2 / 3),
        "accuracy_name": 1.0,
        "accuracy_yes_no": 0.5,
    }


def test_as_many_answers_as_questions():
    with pytest.raises(UserError):
        score_answers(["yes"], EXAMPLES)


def test_the_most_frequent_answer_goes_by_question_then_by_kind_then_by_all():
    training = [
        *({"question": "is it?", "kind": "yes_no", "answer": a} for a in ("no", "yes", "no")),
        *({"question": "is he?", "kind": "yes_no", "answer": "yes"} for _ in range(5)),
        *({"question": "who?", "kind": "who", "answer": "me"} for _ in range(9)),
    ]
    by = ("question", "kind")
    assert most_frequent_answers(training, EXAMPLES, by=by) == ["me", "no", "yes"]
    assert most_frequent_answers(training, EXAMPLES) == ["me"] * 3
    assert most_frequent_answers([], EXAMPLES) == [""] * 3
    ties = [{"question": "?", "kind": "name", "answer": a} for a in ("b", "a")]
    assert most_frequent_answers(ties, EXAMPLES)[0] == "a"
