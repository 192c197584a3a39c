"""VQA v2, `data_dir/vqa_v2`: questions about COCO's photos; the official files, unchanged.

    v2_OpenEnded_mscoco_train2014_questions.json    v2_mscoco_train2014_annotations.json
    v2_OpenEnded_mscoco_val2014_questions.json      v2_mscoco_val2014_annotations.json
    v2_OpenEnded_mscoco_test-dev2015_questions.json (test_dev)
    v2_OpenEnded_mscoco_test2015_questions.json     (test_std)
    train2014/ val2014/ test2015/                   COCO_train2014_000000000009.jpg and so on
    answers.txt                                     the classes: `simvlm prepare answers`
    dataset_coco.json                               Karpathy's split, for the splits named so

`vqa_v2` (paper, section 4.2.1): image to the encoder, question to the decoder, a class for the
answer. `vqa_v2_generate` (open-ended, section 4.3): image and question to the encoder, the answer
from the decoder; training shows one of the ten answers, another in every epoch. Karpathy's test
split falls into questions whose most frequent answer is a class (`_in`) and others (`_out`);
`partial_train` has only questions that are answered by two thirds of the classes.
"""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.benchmarks.fields import STRINGS, fields
from simvlm_jax.data.benchmarks.vqa import ANSWERS, question_rows
from simvlm_jax.data.classification import IMAGE, register_classification
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, pick_one, source_to_target
from simvlm_jax.data.sources import OfficialSource, OfficialSplit
from simvlm_jax.data.vocabulary import default_vocabulary

FOLDER, PARTS = "vqa_v2", ("train2014", "val2014", "test2015")
BOTH = ("train2014", "val2014")
UNANNOTATED = {"test_dev": "test-dev2015", "test_std": "test2015"}
KARPATHY = {
    "karpathy_train": {"karpathy": "train"},
    "partial_train": {"karpathy": "train", "partial": True},
    "karpathy_val": {"karpathy": "val"},
    "karpathy_test": {"karpathy": "test"},
    "karpathy_test_in": {"karpathy": "test", "domain": "in"},
    "karpathy_test_out": {"karpathy": "test", "domain": "out"},
}
FIELDS = fields(
    f"question answer answer_type question_type {IMAGE}", "question_id image_id", "answers"
)
LABELS = {
    "labels": tf.io.FixedLenFeature([ANSWERS], tf.int64),
    "label_scores": tf.io.FixedLenFeature([ANSWERS], tf.float32),
}


def _split(parts: tuple[str, ...], names: tuple[str, ...] = (), **options) -> OfficialSplit:
    files = []
    for name in names or parts:
        files.append(f"{FOLDER}/v2_OpenEnded_mscoco_{name}_questions.json")
        if options.get("annotated", True):
            files.append(f"{FOLDER}/v2_mscoco_{name}_annotations.json")
    if {"classes", "domain", "partial"} & options.keys():
        files.append(f"{FOLDER}/answers.txt")
    if "karpathy" in options:
        files.append(f"{FOLDER}/dataset_coco.json")
    return OfficialSplit(tuple(files), question_rows, {"parts": parts, **options})


def _source(features: dict, aliases: dict | None = None, **options) -> OfficialSource:
    splits = {"train": _split(BOTH[:1], **options), "val": _split(BOTH[1:], **options)}
    splits["trainval"] = _split(BOTH, **options)
    for split, name in UNANNOTATED.items():
        splits[split] = _split(PARTS[2:], (name,), annotated=False, **options)
    splits |= {split: _split(BOTH, **which, **options) for split, which in KARPATHY.items()}
    folders = [f"{FOLDER}/{part}" for part in PARTS]
    return OfficialSource(FOLDER, splits, features, folders, aliases)


register_classification(
    "vqa_v2", _source({**FIELDS, **LABELS}, classes=True), "", "{question}", [IMAGE], ANSWERS
)
seqio.TaskRegistry.add(
    "vqa_v2_generate",
    source=_source({**FIELDS, "one_answer": STRINGS}, {"one_answer": "answers"}),
    preprocessors=[
        functools.partial(pick_one, field="one_answer"),
        functools.partial(from_record, targets="{one_answer}", inputs="{question}", image=IMAGE),
        source_to_target,
    ],
    output_features=task_features(default_vocabulary(), image=True),
)
