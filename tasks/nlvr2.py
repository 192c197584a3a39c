"""NLVR2, `data_dir/nlvr2`: is a statement true of two photos? The official files, unchanged.

    train.json dev.json test1.json test2.json
    images/train/               4/train-10171-0-img0.png and so on
    dev/ test1/ test2/          dev-850-0-img0.png and so on

Splits: train, dev, test_p (test1, the public test), test_u (test2, the unreleased one). Each of the
two images goes to the encoder with the statement in the decoder, and both are classified together
(paper, section 4.2.1). Class 1 is true. `sentence_id` is the same where the sentence is, for
consistency.
"""

from simvlm_jax.data.benchmarks.entailment import statement_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.classification import IMAGE, SECOND_IMAGE, register_classification
from simvlm_jax.data.sources import OfficialSource, OfficialSplit

FOLDER = "nlvr2"
FILES = {"train": "train", "dev": "dev", "test_p": "test1", "test_u": "test2"}
PLACES = {"train": "images/train", "dev": "dev", "test1": "test1", "test2": "test2"}

register_classification(
    "nlvr2",
    OfficialSource(
        FOLDER,
        {
            split: OfficialSplit((f"{FOLDER}/{name}.json",), statement_rows, {"folder": name})
            for split, name in FILES.items()
        },
        fields(f"identifier sentence_id sentence {IMAGE} {SECOND_IMAGE}", "label"),
        [f"{FOLDER}/{place}" for place in PLACES.values()],
    ),
    targets="{sentence}",
    images=[IMAGE, SECOND_IMAGE],
)
