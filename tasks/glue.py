"""GLUE, `data_dir/glue`: the paper's eight tasks on text alone; the official TSV files, unchanged.

    CoLA/ SST-2/ RTE/ MRPC/ QQP/ MNLI/ QNLI/ WNLI/   train.tsv dev.tsv test.tsv; MNLI has
    dev_matched.tsv, dev_mismatched.tsv, test_matched.tsv and test_mismatched.tsv

Tasks glue_cola, glue_sst2, glue_rte, glue_mrpc, glue_qqp, glue_mnli, glue_qnli, glue_wnli; splits
as the files are called. The first sentence to the encoder, the second to the decoder; of a single
sentence the decoder reads the start alone. MNLI's classes have SNLI-VE's ids; of RTE and QNLI 0 is
entailment, of the others 1 is what the files call 1. Without labels (test) the label is -1.
"""

from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.benchmarks.glue import TABLES, glue_rows
from simvlm_jax.data.classification import register_classification
from simvlm_jax.data.sources import OfficialSource, OfficialSplit

FOLDER, SPLITS = "glue", ("train", "dev", "test")
MNLI_SPLITS = ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")

for _name, _table in TABLES.items():
    register_classification(
        f"glue_{_name}",
        OfficialSource(
            FOLDER,
            {
                split: OfficialSplit(
                    (f"{FOLDER}/{_table.folder}/{split}.tsv",),
                    glue_rows,
                    {"task": _name, "labelled": not split.startswith("test")},
                )
                for split in (MNLI_SPLITS if _name == "mnli" else SPLITS)
            },
            fields("first second", "index label"),
        ),
        inputs="{first}",
        targets="{second}",
    )
