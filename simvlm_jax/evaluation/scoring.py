"""Scorers as an evaluation calls them: answers and the examples' records in, numbers out.

Each names the fields it reads and hands them to a scorer that knows nothing of records. Where no
example has a reference, as in a test split, there is nothing to score and the result is empty.
"""

from collections.abc import Sequence

from simvlm_jax.evaluation.answers import score_answers
from simvlm_jax.evaluation.captions import most_frequent_share, sameness_warning, score_captions
from simvlm_jax.evaluation.classification import score_classes
from simvlm_jax.evaluation.fields import Record, every, first
from simvlm_jax.evaluation.glue import score_glue
from simvlm_jax.evaluation.java_captions import score_with_java
from simvlm_jax.evaluation.nlvr2 import score_nlvr2
from simvlm_jax.evaluation.nocaps import score_nocaps
from simvlm_jax.evaluation.translation import bleu_signature, chrf_signature, score_translations
from simvlm_jax.evaluation.vqa_accuracy import score_vqa

Metrics = dict[str, float | str]
TARGET = "targets_pretokenized"


def captions(
    answers: Sequence[str],
    records: Sequence[Record],
    references: str = TARGET,
    java: bool = False,
) -> Metrics:
    """Caption metrics.

    Args:
      answers: a caption for each record.
      records: the examples.
      references: their field with one or several captions.
      java: METEOR and SPICE too; what cannot be had is told by a warning.
    """
    wanted = [every(record, references) for record in records]
    if not any(wanted):
        return {}
    metrics: Metrics = dict(score_captions(answers, wanted))
    if java:
        more, reasons = score_with_java(answers, wanted)
        metrics |= more
        metrics |= {f"warning_java_{n}": reason for n, reason in enumerate(reasons, 1)}
    if warning := sameness_warning(answers, wanted):
        metrics["warning_sameness"] = warning
    return metrics


def nocaps(answers: Sequence[str], records: Sequence[Record]) -> Metrics:
    """Caption metrics, and CIDEr of each domain."""
    if not any(record["references"] for record in records):
        return {}
    images = [record["image_id"] for record in records]
    references = [every(record, "references") for record in records]
    domains = [record["domain"] for record in records]
    by_image = [dict(zip(images, values, strict=True)) for values in (answers, references, domains)]
    return score_nocaps(*by_image)


def translations(
    answers: Sequence[str], records: Sequence[Record], references: str = TARGET
) -> Metrics:
    """Translation metrics and their signatures."""
    wanted = [every(record, references) for record in records]
    count = max(map(len, wanted), default=1)
    signatures: Metrics = {
        "bleu_signature": bleu_signature(count),
        "chrf_signature": chrf_signature(count),
    }
    return signatures | score_translations(answers, wanted)


def classes(answers: Sequence[str], records: Sequence[Record], label: str = "label") -> Metrics:
    """Accuracy, over all and by class, of the examples that have a label."""
    pairs = [
        (answer, first(record, label))
        for answer, record in zip(answers, records, strict=True)
        if first(record, label)
    ]
    return flat(score_classes(*zip(*pairs, strict=True))) if pairs else {}


def glue(answers: Sequence[str], records: Sequence[Record], task: str) -> Metrics:
    """The metrics of one of GLUE's tasks; classes are called by their numbers."""
    labels = [first(record, "label") for record in records]
    if not all(labels):
        return {}
    return dict(score_glue(task, [int(a) for a in answers], [int(label) for label in labels]))


def nlvr2(answers: Sequence[str], records: Sequence[Record]) -> Metrics:
    """Accuracy and consistency; the classes are called False and True."""
    names = [record["identifier"] for record in records]
    labels = [first(record, "label") for record in records]
    if not all(labels):
        return {}
    pairs = [dict(zip(names, values, strict=True)) for values in (answers, labels)]
    return dict(score_nlvr2(*pairs))


def vqa(answers: Sequence[str], records: Sequence[Record]) -> Metrics:
    """VQA accuracy, over all and by type of answer and of question."""
    if not any(record["answers"] for record in records):
        return {}
    predictions = {r["question_id"]: answer for r, answer in zip(records, answers, strict=True)}
    annotations = [
        {
            **{name: r[name] for name in ("question_id", "answer_type", "question_type")},
            "answers": [{"answer": text} for text in r["answers"]],
        }
        for r in records
    ]
    return flat(score_vqa(predictions, annotations))


def answers(
    answers: Sequence[str],
    records: Sequence[Record],
    references: str = "answer",
    kind: str | None = None,
) -> Metrics:
    """The share of right answers, over all and over those of each kind of question."""
    return {
        **score_answers(answers, records, references, kind),
        "most_frequent_share": most_frequent_share(answers),
    }


def flat(metrics: dict) -> Metrics:
    """Puts the numbers of a nested result beside the others.

    Example: {"accuracy_by_class": {"yes": 1.0}} becomes {"accuracy_by_class/yes": 1.0}.
    """
    found: Metrics = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= {f"{name}/{key}": number for key, number in value.items()}
        else:
            found[name] = value
    return found
