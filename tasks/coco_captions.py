"""COCO captions by Karpathy's split, `data_dir/coco_captions`; the official files, unchanged.

    dataset_coco.json     Karpathy's split with all captions
    train2014/ val2014/   COCO_val2014_000000391895.jpg and so on

Splits: train (Karpathy's train and restval, 113,287 images), val and test (5,000 each). After the
image the encoder reads "a picture of" (paper, section 4.3: the prompt of zero-shot captioning),
the decoder writes the caption. Training shows each image once in an epoch, with one of its
captions, another from epoch to epoch; `references` has them all.
"""

import functools

import seqio

from simvlm_jax.data.benchmarks.captions import karpathy_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.classification import IMAGE
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, pick_one, source_to_target
from simvlm_jax.data.sources import OfficialSource, OfficialSplit
from simvlm_jax.data.vocabulary import default_vocabulary

FOLDER, PROMPT = "coco_captions", "a picture of"
SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}

seqio.TaskRegistry.add(
    "coco_captions",
    source=OfficialSource(
        FOLDER,
        {
            split: OfficialSplit((f"{FOLDER}/dataset_coco.json",), karpathy_rows, {"splits": names})
            for split, names in SPLITS.items()
        },
        fields(strings=IMAGE, numbers="image_id", lists="caption references"),
        [f"{FOLDER}/train2014", f"{FOLDER}/val2014"],
        {"caption": "captions", "references": "captions"},
    ),
    preprocessors=[
        functools.partial(pick_one, field="caption"),
        functools.partial(from_record, targets="{caption}", inputs=PROMPT, image=IMAGE),
        source_to_target,
    ],
    output_features=task_features(default_vocabulary(), image=True),
)
