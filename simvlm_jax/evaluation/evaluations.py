"""What can be asked of a trained run: a task, a way to answer, a scorer, and controls beside it."""

import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from simvlm_jax.data.evaluation_split import EvaluationSplit
from simvlm_jax.data.plain import evaluation_examples
from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.answers import most_frequent_answers
from simvlm_jax.evaluation.controls import derangement, derangement_by_label
from simvlm_jax.evaluation.fields import Record, every, first
from simvlm_jax.evaluation.predictor import Inputs, Predictor
from simvlm_jax.evaluation.report import Sample
from simvlm_jax.evaluation.ways import Generate, Way
from simvlm_jax.pages.attention import Looked

Scorer = Callable[[Sequence[str], Sequence[Record]], Mapping[str, float | str]]
Submit = Callable[[Path, Sequence[str], Sequence[Record]], Path]
SHUFFLED, MASKED, WITHOUT = "shuffled", "masked", "without_image"
CONTROLS = (SHUFFLED, MASKED, WITHOUT, "most_frequent")
MOST_TRAINING_TEXTS = 100_000  # read for the most frequent answer
MOST_LOOKED = 12  # samples whose attention is shown
LEAST_GAP = 0.01  # nats a token between right and shuffled images, for a model that looks at them


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
      metrics: numbers and texts; controls have the name of their metric with a suffix.
      model_dir: of the run that answered.
      step: of its checkpoint.
      records: the examples' fields, in order.
      answers: a text for each.
      submit: writes the file that a server judges, or None.
      samples: for the report.
      looked: likewise, with where the decoder looked in the image.
    """

    metrics: dict[str, float | str]
    model_dir: Path
    step: int
    records: Sequence[Record]
    answers: Sequence[str]
    submit: Submit | None = None
    samples: Sequence[Sample] = ()
    looked: Sequence[Looked] = ()


class Evaluation(Protocol):
    """One section of metrics.json, and samples for the report."""

    name: str

    def run(self, model_dir: Path, step: int | None = None) -> Result:
        """Evaluates a checkpoint of the run in a folder."""


@dataclasses.dataclass(frozen=True)
class TaskEvaluation:
    """A run's answers to one split, scored, beside the scores of answers that cannot be right.

    Attributes:
      name: section of metrics.json.
      task: a seqio task.
      split: of the task.
      lengths: task feature lengths.
      scorer: judges answers by the examples' records; see scoring.py.
      way: how the model answers; see ways.py.
      controls: of `CONTROLS`: every example sees another one's image ("shuffled"), a grey one
        ("masked") or none ("without_image"); or the most frequent training answer is given
        ("most_frequent").
      loss: also report the model's loss, and that with shuffled images.
      reference: the record's field with the right answer, or a list of them.
      names: where the reference is a class id, the classes' names; none where the id is -1.
      submit: writes the file that a benchmark's server judges; see submitting.py.
      question: the field that the report shows beside the image, or None.
      shuffle_by: the field by which images are shuffled: no example gets one that has the same
        there, where that can be. By default the reference.
      guess_by: fields by which the most frequent answer is told; see `most_frequent_answers`.
      training_split: of the task, for the most frequent answer.
      subfolder: of the run's folder, where the run that answers lies.
      batch_size: examples run at once.
      samples: how many examples the report shows.
      seed: of the shuffled control.
    """

    name: str
    task: str
    split: str
    lengths: Mapping[str, int]
    scorer: Scorer
    way: Way = Generate()  # noqa: RUF009 - it has no state
    controls: Sequence[str] = (SHUFFLED,)
    loss: bool = False
    reference: str = "targets_pretokenized"
    names: Sequence[str] | None = None
    submit: Submit | None = None
    question: str | None = "inputs_pretokenized"
    shuffle_by: str | None = None
    guess_by: Sequence[str] = ()
    training_split: str = "train"
    subfolder: str = ""
    batch_size: int = 64
    samples: int = 36
    seed: int = 0

    def run(self, model_dir: Path, step: int | None = None) -> Result:
        """Answers and scores, the right inputs first and then the controls."""
        if unknown := sorted(set(self.controls) - set(CONTROLS)):
            raise UserError(f"There is no control {unknown[0]!r}; use some of {CONTROLS}.")
        folder = model_dir / self.subfolder
        predictor = Predictor(folder, self.batch_size, step)
        split = predictor.open(self.task, self.split, self.lengths)
        records = [self._named(record) for record in split.records()]
        answers, scores = self.way(predictor, Inputs(split))
        metrics: dict[str, Any] = {"examples": len(records)}
        metrics |= self.scorer(answers, records)
        if unusable := split.ledger.counts.total():
            metrics["unusable_examples"] = unusable
        if self.loss:
            metrics["loss"] = predictor.loss(Inputs(split))
        for control in self.controls:
            metrics |= self._control(control, predictor, split, records)
        metrics |= blindness(metrics)
        result = Result(metrics, folder, predictor.step, records, answers, self.submit)
        return self._shown(predictor, split, result, scores)

    def _named(self, record: Record) -> Record:
        """The record with the name of its class in place of the id."""
        if self.names is None:
            return record
        number = record[self.reference]
        name = self.names[number] if 0 <= number < len(self.names) else ""
        return {**record, self.reference: name}

    def _control(
        self, name: str, predictor: Predictor, split: EvaluationSplit, records: Sequence[Record]
    ) -> dict[str, Any]:
        """The control's metrics, with its name as their suffix."""
        if name == "most_frequent":
            found = numbers(self.scorer(self._most_frequent(records), records))
            return {f"{key}_{name}": value for key, value in found.items()}
        if not split.has_image:
            raise UserError(
                f"The task {self.task!r} has no image, so it has no control {name!r}: leave it out."
            )
        inputs = {
            SHUFFLED: lambda: Inputs(split, self._other_images(records)),
            MASKED: lambda: Inputs(split, images="masked"),
            WITHOUT: lambda: Inputs(split, images="none"),
        }[name]()
        found = numbers(self.scorer(self.way(predictor, inputs)[0], records))
        if self.loss and name == SHUFFLED:
            found["loss"] = predictor.loss(inputs)
        return {f"{key}_{name}": value for key, value in found.items()}

    def _other_images(self, records: Sequence[Record]) -> np.ndarray:
        """Of which example each one's image is in the shuffled control, int64 [N]."""
        labels = [first(record, self.shuffle_by or self.reference) for record in records]
        if 2 * Counter(labels).most_common(1)[0][1] > len(labels):
            return derangement(len(labels), self.seed)  # half say the same: yes-or-no questions
        return derangement_by_label(labels, self.seed)

    def _most_frequent(self, records: Sequence[Record]) -> list[str]:
        found = evaluation_examples(self.task, self.training_split, MOST_TRAINING_TEXTS)
        training = [self._named(record) for record in found]
        return most_frequent_answers(training, records, self.reference, self.guess_by)

    def _shown(
        self, predictor: Predictor, split: EvaluationSplit, result: Result, scores: np.ndarray
    ) -> Result:
        """The result with at most `samples` samples, and where the decoder looked in some."""
        chosen = spread(len(result.records), self.samples)
        arrays = split.examples(chosen)
        images = arrays.get("image", [None] * len(chosen))
        samples = [
            Sample(
                b"" if image is None else image_png(image),
                self.name,
                str(result.records[i].get(self.question, "")) if self.question else "",
                result.answers[i],
                first(result.records[i], self.reference),
                result.answers[i] in every(result.records[i], self.reference),
                float(scores[i]),
            )
            for i, image in zip(chosen, images, strict=True)
        ]
        if not (split.has_image and isinstance(self.way, Generate)):
            return dataclasses.replace(result, samples=samples)
        some = [chosen[i] for i in spread(len(chosen), MOST_LOOKED)]
        arrays = split.examples(some)
        looked = [
            Looked(f"{self.name} {i}", image, result.answers[i], float(scores[i]), words)
            for i, image, words in zip(some, arrays["image"], predictor.look(arrays), strict=True)
        ]
        return dataclasses.replace(result, samples=samples, looked=looked)


def spread(count: int, wanted: int) -> list[int]:
    """Numbers below `count`, at most `wanted`, spread evenly: nobody picked the good ones.

    Example: of 10, 4 are 0, 2, 5, 7.
    """
    wanted = min(wanted, count)
    return [i * count // wanted for i in range(wanted)]


def blindness(metrics: Mapping[str, Any]) -> dict[str, str]:
    """A warning where the loss is the same with other examples' images.

    Example: losses of 2.31 and 2.312 nats warn, 2.31 and 2.41 do not.
    """
    gap = metrics.get("loss_shuffled", float("inf")) - metrics.get("loss", 0.0)
    if gap > LEAST_GAP:
        return {}
    return {
        "warning_images": f"The loss grows by {gap:.4f} nats only when images are shuffled: the "
        "model ignores them. Train for longer, or with a prefix that gives less of the text away."
    }


def numbers(metrics: Mapping[str, float | str]) -> dict[str, float]:
    """What of a scorer's result can stand beside another one."""
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, str) and not name.endswith("_maximum")
    }


def image_png(image: np.ndarray) -> bytes:
    """The PNG file of an image, uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
