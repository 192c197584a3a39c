"""Answers to questions about images, beside what can be had without looking at the image."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simvlm_jax.data.plain import evaluation_examples
from simvlm_jax.evaluation.captions import matches
from simvlm_jax.evaluation.controls import derangement_by_label
from simvlm_jax.evaluation.evaluations import Result, samples_of
from simvlm_jax.evaluation.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class AnswerEvaluation:
    """Generated answers of one split, beside shuffled images and the most frequent answers.

    Attributes:
      name: section of metrics.json.
      task: a seqio task with `question`, `answer`, `kind` and `codepoints`.
      split: of the task.
      lengths: task feature lengths.
      batch_size: examples run at once.
      samples: how many examples the report shows.
      seed: of the shuffled control.
    """

    name: str
    task: str
    split: str
    lengths: Mapping[str, int]
    batch_size: int = 128
    samples: int = 24
    seed: int = 0

    def run(self, model_dir: Path) -> Result:
        """Answers with the right images, with another drawing's, and without any model."""
        predictor = Predictor(model_dir, self.batch_size)
        arrays, examples = predictor.split(self.task, self.split, self.lengths)
        order = derangement_by_label([example["codepoints"] for example in examples], self.seed)
        answers, scores = predictor.generate(arrays)
        shuffled, _ = predictor.generate({**arrays, "image": arrays["image"][order]})
        constant = most_frequent_answers(evaluation_examples(self.task, "train"), examples)
        metrics: dict[str, float | str] = {"examples": len(examples)}
        for suffix, given in (("", answers), ("_shuffled", shuffled), ("_most_frequent", constant)):
            metrics |= {f"{n}{suffix}": v for n, v in score_answers(given, examples).items()}
        right = matches(answers, [example["answer"] for example in examples])
        generated = list(zip(answers, right, scores.tolist(), strict=True))
        return metrics, samples_of(self.name, self.samples, arrays, examples, generated)


def score_answers(answers: Sequence[str], examples: Sequence[Mapping]) -> dict[str, float]:
    """The share of right answers, over all questions and over those of each kind.

    Args:
      answers: N texts.
      examples: N examples with `answer` and `kind`.

    Returns:
      `accuracy` and `accuracy_KIND` for each kind, in [0, 1].

    Raises:
      UserError: there are none, or not as many answers as examples.
    """
    right = np.array(matches(answers, [example["answer"] for example in examples]))
    kinds = np.array([example["kind"] for example in examples])
    found = {"accuracy": float(right.mean())}
    return found | {f"accuracy_{k}": float(right[kinds == k].mean()) for k in sorted({*kinds})}


def most_frequent_answers(training: Sequence[Mapping], examples: Sequence[Mapping]) -> list[str]:
    """The commonest training answer to each example's question, else to its kind of question.

    Args:
      training: examples with `question`, `kind` and `answer`.
      examples: examples to answer.

    Returns:
      An answer each; "" to a kind that training does not have. Among equals the first by alphabet.
    """
    by_question: dict[str, Counter] = {}
    by_kind: dict[str, Counter] = {}
    for example in training:
        by_question.setdefault(example["question"], Counter())[example["answer"]] += 1
        by_kind.setdefault(example["kind"], Counter())[example["answer"]] += 1
    return [
        _commonest(by_question.get(e["question"]) or by_kind.get(e["kind"]) or Counter())
        for e in examples
    ]


def _commonest(counts: Counter) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")
