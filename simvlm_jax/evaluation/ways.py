"""Ways to use a trained model: each turns a split's examples into texts that a scorer can judge.

Dimension letters: N examples of a split, B batch, T tokens, C classes or candidates.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simvlm_jax.data.paths import data_dir
from simvlm_jax.data.vocabulary import EOS_ID, default_vocabulary
from simvlm_jax.data.vqa_answers import read_classes
from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.predictor import Arrays, Inputs, Predictor

Answers = tuple[list[str], np.ndarray]  # a text and a score for each example


class Way(Protocol):
    """How a model answers."""

    def __call__(self, predictor: Predictor, inputs: Inputs) -> Answers:
        """A text for each example, and its score float32 [N]."""


@dataclasses.dataclass(frozen=True)
class Generate:
    """The decoder writes: captions, translations, open-ended answers (paper section 4.1 to 4.3)."""

    def __call__(self, predictor: Predictor, inputs: Inputs) -> Answers:
        """Texts and their log probabilities, by the run's own decoding settings."""
        if not hasattr(predictor.model, "prompt"):
            raise UserError(
                "This run is a classifier and writes no text: evaluate it with ways.Classify."
            )
        return predictor.generate(inputs)


@dataclasses.dataclass(frozen=True)
class Classify:
    """The classifier's likeliest class (VQA, SNLI-VE, NLVR2, GLUE, ImageNet; paper section 4.1).

    Attributes:
      names: of the classes, in the order of their ids; None calls them by these.
    """

    names: Sequence[str] | None = None

    def __call__(self, predictor: Predictor, inputs: Inputs) -> Answers:
        """The class's name and its logit."""
        if not hasattr(predictor.model, "classes"):
            raise UserError(
                "This run has no classifier: finetune one first, or evaluate it with ways.Generate "
                "or ways.Score."
            )
        classes = predictor.model.classes
        names = list(map(str, range(classes))) if self.names is None else self.names
        if classes != len(names):
            raise UserError(
                f"The run tells {classes} classes apart, but {len(names)} have a name: give those "
                "it was trained with."
            )
        logits = predictor.classify(inputs)
        chosen = logits.argmax(axis=1)
        return [names[c] for c in chosen], logits[np.arange(len(logits)), chosen]


@dataclasses.dataclass(frozen=True)
class Score:
    """The candidate that is likeliest as the text after the prefix: zero-shot classification.

    Every candidate is put in the decoder's place in turn, N * C runs of the model.

    Attributes:
      candidates: the texts.
      answers: what choosing each means; by default the candidates themselves.
      by_token: compare log probabilities per token, which does not favour short texts.
    """

    candidates: Sequence[str]
    answers: Sequence[str] | None = None
    by_token: bool = False

    def __call__(self, predictor: Predictor, inputs: Inputs) -> Answers:
        """The likeliest candidate's answer, and its log probability."""
        answers = self.candidates if self.answers is None else self.answers
        if not self.candidates or len(answers) != len(self.candidates):
            raise UserError(
                f"{len(self.candidates)} candidates and {len(answers)} answers: give at least one, "
                "and an answer for each."
            )
        if not hasattr(predictor.model, "score_batch"):
            raise UserError("This run is a classifier and scores no texts: use ways.Classify.")
        scores = np.stack([self._of(text, predictor, inputs) for text in self.candidates], axis=1)
        chosen = scores.argmax(axis=1)
        return [answers[c] for c in chosen], scores[np.arange(len(scores)), chosen]

    def _of(self, text: str, predictor: Predictor, inputs: Inputs) -> np.ndarray:
        """float32 [N]."""
        tokens = np.int32([*default_vocabulary().encode(text), EOS_ID])
        change = lambda batch: with_target(batch, tokens)  # noqa: E731
        scores = predictor.score(dataclasses.replace(inputs, change=change))
        return scores / len(tokens) if self.by_token else scores


def names_in(file: str) -> list[str]:
    """The classes of a file below the data folder, one a line, such as vqa_v2/answers.txt."""
    return list(read_classes(data_dir() / file))


def with_target(batch: Arrays, tokens: np.ndarray) -> Arrays:
    """Puts one text in the place of every example's target.

    Worked example: tokens [7 8 1] in a batch with targets of length 5 give
    decoder_target_tokens [7 8 1 0 0], decoder_input_tokens [0 7 8 1 0] and
    decoder_loss_weights [1 1 1 0 0].

    Args:
      batch: arrays [B, ...]; its targets' length T is kept.
      tokens: int32 [n], with the end of sequence.

    Returns:
      The batch with the three arrays replaced.

    Raises:
      UserError: the text is longer than T.
    """
    size, length = batch["decoder_target_tokens"].shape
    if len(tokens) > length:
        raise UserError(
            f"A candidate has {len(tokens)} tokens, but the targets' length is {length}: raise it."
        )
    target = np.pad(tokens, (0, length - len(tokens))).astype(np.int32)
    given = np.pad(target[:-1], (1, 0))
    new = {
        "decoder_target_tokens": target,
        "decoder_input_tokens": given,
        "decoder_loss_weights": (target != 0).astype(np.float32),
    }
    return batch | {name: np.tile(array, (size, 1)) for name, array in new.items()}
