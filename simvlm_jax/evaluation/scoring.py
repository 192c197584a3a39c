"""Scorers as an evaluation calls them: answers and the examples' records in, numbers out.

Each names the fields it reads and hands them to a scorer that knows nothing of records.
"""

from collections.abc import Sequence

from simvlm_jax.evaluation.captions import score_captions
from simvlm_jax.evaluation.fields import Record, every
from simvlm_jax.evaluation.translation import chrf_signature, score_translations

Metrics = dict[str, float | str]
TARGET = "targets_pretokenized"


def captions(
    answers: Sequence[str], records: Sequence[Record], references: str = TARGET
) -> Metrics:
    """Caption metrics; `references` is the field with one or several captions."""
    return dict(score_captions(answers, [every(record, references) for record in records]))


def translations(
    answers: Sequence[str], records: Sequence[Record], references: str = TARGET
) -> Metrics:
    """Translation metrics and their signature."""
    wanted = [every(record, references) for record in records]
    found: Metrics = {"chrf_signature": chrf_signature(max(map(len, wanted), default=1))}
    return found | score_translations(answers, wanted)
