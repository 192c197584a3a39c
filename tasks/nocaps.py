"""NoCaps, `data_dir/nocaps`: captions of things that COCO does not name; official files, unchanged.

    nocaps_val_4500_captions.json   4,500 images with ten captions each, and their domains
    nocaps_test_image_info.json     10,600 images without captions
    val/ test/                      0013ea2087020901.jpg and so on, from Open Images

Splits: val and test; there is nothing to train on, the paper uses the model finetuned on COCO
(section 4.2.1), or no finetuning after "a picture of" (section 4.3). `domain` is in-domain,
near-domain or out-domain; `references` has all captions, none in test.
"""

import functools

import seqio

from simvlm_jax.data.benchmarks.captions import nocaps_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.classification import IMAGE
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, pick_one, source_to_target
from simvlm_jax.data.sources import OfficialSource, OfficialSplit
from simvlm_jax.data.vocabulary import default_vocabulary

FOLDER, PROMPT = "nocaps", "a picture of"
FILES = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}

seqio.TaskRegistry.add(
    "nocaps",
    source=OfficialSource(
        FOLDER,
        {
            split: OfficialSplit((f"{FOLDER}/{name}",), nocaps_rows, {"folder": split})
            for split, name in FILES.items()
        },
        fields(strings=f"{IMAGE} domain", numbers="image_id", lists="caption references"),
        [f"{FOLDER}/val", f"{FOLDER}/test"],
        {"caption": "captions", "references": "captions"},
    ),
    preprocessors=[
        functools.partial(pick_one, field="caption"),
        functools.partial(from_record, targets="{caption}", inputs=PROMPT, image=IMAGE),
        source_to_target,
    ],
    output_features=task_features(default_vocabulary(), image=True),
)
