"""What can be asked of a trained run; each evaluation stands beside its controls."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from simvlm_jax.data.plain import evaluation_examples
from simvlm_jax.evaluation.captions import matches, most_frequent_caption, score_captions
from simvlm_jax.evaluation.controls import derangement_by_label
from simvlm_jax.evaluation.predictor import Predictor
from simvlm_jax.evaluation.report import Sample
from simvlm_jax.evaluation.translation import chrf_signature, score_translations

Result = tuple[dict[str, float | str], list[Sample]]


class Evaluation(Protocol):
    """One section of metrics.json, and samples for the report."""

    name: str

    def run(self, model_dir: Path) -> Result:
        """Evaluates the run in a folder."""


@dataclasses.dataclass(frozen=True)
class CaptionEvaluation:
    """Captions of one split, beside shuffled images and the most frequent training caption.

    Attributes:
      name: section of metrics.json.
      task: a seqio task whose targets are captions.
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
    batch_size: int = 64
    samples: int = 36
    seed: int = 0

    def run(self, model_dir: Path) -> Result:
        """Generates and scores, with the right images and with another example's."""
        predictor = Predictor(model_dir, self.batch_size)
        arrays, examples = predictor.split(self.task, self.split, self.lengths)
        references = [example["targets_pretokenized"] for example in examples]
        order = derangement_by_label(references, self.seed)
        shuffled = {**arrays, "image": arrays["image"][order]}
        captions, scores = predictor.generate(arrays)
        metrics: dict[str, float | str] = {"examples": len(references)}
        metrics |= score_captions(captions, references)
        metrics["loss"] = predictor.loss(arrays)
        control = score_captions(predictor.generate(shuffled)[0], references)
        metrics |= {f"{key}_shuffled": control[key] for key in ("exact_match", "cider")}
        metrics["loss_shuffled"] = predictor.loss(shuffled)
        train = evaluation_examples(self.task, "train")
        constant = most_frequent_caption(example["targets_pretokenized"] for example in train)
        control = score_captions([constant] * len(references), references)
        metrics |= {f"{key}_most_frequent": control[key] for key in ("exact_match", "cider")}
        correct = matches(captions, references)
        generated = list(zip(captions, correct, scores.tolist(), strict=True))
        return metrics, samples_of(self.name, self.samples, arrays, examples, generated)


@dataclasses.dataclass(frozen=True)
class TranslationEvaluation:
    """Translations with the image, with another example's image, and with none.

    Attributes:
      name: section of metrics.json.
      task: a seqio task with image, source text and target text.
      split: of the task.
      lengths: task feature lengths of `task`.
      subfolder: of the run's folder, where the finetuned run lies.
      batch_size: examples run at once.
      samples: how many examples the report shows.
      seed: of the shuffled control.
    """

    name: str
    task: str
    split: str
    lengths: Mapping[str, int]
    subfolder: str = "translation"
    batch_size: int = 64
    samples: int = 12
    seed: int = 0

    def run(self, model_dir: Path) -> Result:
        """Generates and scores all three."""
        predictor = Predictor(model_dir / self.subfolder, self.batch_size)
        arrays, examples = predictor.split(self.task, self.split, self.lengths)
        references = [example["targets_pretokenized"] for example in examples]
        order = derangement_by_label(references, self.seed)
        inputs = {
            "": arrays,
            "_shuffled": {**arrays, "image": arrays["image"][order]},
            "_without_image": {k: v for k, v in arrays.items() if k != "image"},
        }
        metrics: dict[str, float | str] = {
            "examples": len(references),
            "chrf_signature": chrf_signature(),
        }
        texts, scores = predictor.generate(arrays)
        for suffix, given in inputs.items():
            translated = texts if given is arrays else predictor.generate(given)[0]
            scored = score_translations(translated, references)
            metrics |= {f"{key}{suffix}": number for key, number in scored.items()}
        correct = [text == reference for text, reference in zip(texts, references, strict=True)]
        generated = list(zip(texts, correct, scores.tolist(), strict=True))
        return metrics, samples_of(self.name, self.samples, arrays, examples, generated)


def image_png(image: np.ndarray) -> bytes:
    """The PNG file of an image, uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def samples_of(
    name: str,
    wanted: int,
    arrays: Mapping[str, np.ndarray],
    examples: list[dict],
    generated: list[tuple[str, bool, float]],
) -> list[Sample]:
    """At most `wanted` samples, spread evenly over the split: nobody picked the good ones."""
    count = len(examples)
    chosen = [i * count // min(wanted, count) for i in range(min(wanted, count))]
    return [
        Sample(
            image_png(arrays["image"][i]),
            name,
            examples[i]["inputs_pretokenized"],
            generated[i][0],
            examples[i]["targets_pretokenized"],
            generated[i][1],
            generated[i][2],
        )
        for i in chosen
    ]
