"""Answers to questions: how many are right, and what can be had without looking at the image."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from simvlm_jax.evaluation.captions import matches
from simvlm_jax.evaluation.fields import every, first


def score_answers(
    answers: Sequence[str],
    examples: Sequence[Mapping],
    references: str = "answer",
    kind: str | None = None,
) -> dict[str, float]:
    """The share of right answers, over all questions and over those of each kind.

    Args:
      answers: N texts.
      examples: N examples.
      references: the field of the right answer, or of a list of them.
      kind: the field of the kind of question, or None.

    Returns:
      `accuracy`, and `accuracy_KIND` for each kind, in [0, 1].

    Raises:
      UserError: there are none, or not as many answers as examples.
    """
    right = np.array(matches(answers, [every(example, references) for example in examples]))
    found = {"accuracy": float(right.mean())}
    if kind is None:
        return found
    kinds = np.array([example[kind] for example in examples])
    return found | {f"accuracy_{k}": float(right[kinds == k].mean()) for k in sorted({*kinds})}


def most_frequent_answers(
    training: Sequence[Mapping],
    examples: Sequence[Mapping],
    reference: str = "answer",
    by: Sequence[str] = (),
) -> list[str]:
    """The commonest training answer to each example's question, else to its kind of question.

    Args:
      training: examples with the answer and the fields of `by`.
      examples: examples to answer.
      reference: the field of the answer.
      by: fields, the most telling first: the first of them in which training has the example's
        value counts. Where none has, and where there are no fields, all of training does.

    Returns:
      An answer each; "" without training. Among equals the first by alphabet.
    """
    counts: dict[tuple, Counter] = {}
    for example in training:
        answer = first(example, reference)
        for key in [(), *((field, example[field]) for field in by)]:
            counts.setdefault(key, Counter())[answer] += 1
    keys = [[*((field, example[field]) for field in by), ()] for example in examples]
    return [_commonest(next((counts[k] for k in some if k in counts), Counter())) for some in keys]


def _commonest(counts: Counter) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")
