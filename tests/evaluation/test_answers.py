import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.answers import most_frequent_answers, score_answers

EXAMPLES = [
    {"question": "what?", "kind": "name", "answer": "red heart"},
    {"question": "is it?", "kind": "yes_no", "answer": "no"},
    {"question": "is that?", "kind": "yes_no", "answer": "yes"},
]


def test_accuracy_over_all_and_over_each_kind():
    found = score_answers(["Red  heart", "yes", "yes"], EXAMPLES)
    assert found == {
        "accuracy": pytest.approx(2 / 3),
        "accuracy_name": 1.0,
        "accuracy_yes_no": 0.5,
    }


def test_as_many_answers_as_questions():
    with pytest.raises(UserError):
        score_answers(["yes"], EXAMPLES)


def test_the_most_frequent_answer_goes_by_question_then_by_kind():
    training = [
        *({"question": "is it?", "kind": "yes_no", "answer": a} for a in ("no", "yes", "no")),
        *({"question": "is he?", "kind": "yes_no", "answer": "yes"} for _ in range(5)),
    ]
    assert most_frequent_answers(training, EXAMPLES) == ["", "no", "yes"]
    ties = [{"question": "?", "kind": "name", "answer": a} for a in ("b", "a")]
    assert most_frequent_answers(ties, EXAMPLES)[0] == "a"
