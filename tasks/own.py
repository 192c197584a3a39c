"""Your own captions and questions: JSON lines beside a folder of images.

    own_captions/train.jsonl validation.jsonl test.jsonl  {"image": "a/1.jpg", "caption": "a house"}
    own_vqa/train.jsonl validation.jsonl test.jsonl       {"image": "1.jpg", "question": "what is
                                                           it?", "answer": "a dog"}
    own_vqa/answers.txt                                   the classes, one a line

in the data folder; images are found from the file's folder on. `caption` and `answer` may be lists.
`own_captions` writes the caption after "a picture of"; `own_vqa` puts the question into the
decoder and classifies the answer. `simvlm prepare answers --input=data/own_vqa/train.jsonl` makes
the classes. For many images, `simvlm prepare pairs` and `forkme.py` read faster.
"""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.benchmarks.captions import own_caption_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.benchmarks.vqa import ANSWERS, own_question_rows
from simvlm_jax.data.classification import IMAGE, register_classification
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, pick_one, source_to_target
from simvlm_jax.data.sources import OfficialSource, OfficialSplit
from simvlm_jax.data.vocabulary import default_vocabulary

CAPTIONS, VQA, PROMPT = "own_captions", "own_vqa", "a picture of"
SPLITS = ("train", "validation", "test")

seqio.TaskRegistry.add(
    CAPTIONS,
    source=OfficialSource(
        CAPTIONS,
        {
            split: OfficialSplit(
                (f"{CAPTIONS}/{split}.jsonl",), own_caption_rows, {"folder": CAPTIONS}
            )
            for split in SPLITS
        },
        fields(strings=IMAGE, lists="caption references"),
        [CAPTIONS],
        {"caption": "captions", "references": "captions"},
    ),
    preprocessors=[
        functools.partial(pick_one, field="caption"),
        functools.partial(from_record, targets="{caption}", inputs=PROMPT, image=IMAGE),
        source_to_target,
    ],
    output_features=task_features(default_vocabulary(), image=True),
)
register_classification(
    VQA,
    OfficialSource(
        VQA,
        {
            split: OfficialSplit(
                (f"{VQA}/{split}.jsonl", f"{VQA}/answers.txt"), own_question_rows, {"folder": VQA}
            )
            for split in SPLITS
        },
        {
            **fields(f"question answer {IMAGE}", lists="answers"),
            "labels": tf.io.FixedLenFeature([ANSWERS], tf.int64),
            "label_scores": tf.io.FixedLenFeature([ANSWERS], tf.float32),
        },
        [VQA],
    ),
    targets="{question}",
    images=[IMAGE],
    labels=ANSWERS,
)
