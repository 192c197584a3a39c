"""SNLI and MNLI, `data_dir/snli` and `data_dir/mnli`: text only, for transfer to SNLI-VE.

    snli/snli_1.0_train.jsonl _dev _test
    mnli/multinli_1.0_train.jsonl _dev_matched _dev_mismatched

The premise to the encoder, where SNLI-VE has its image, the hypothesis to the decoder (paper,
section 4.3). The classes have SNLI-VE's ids; pairs without a gold label keep their place.
"""

from simvlm_jax.data.benchmarks.entailment import entailment_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.classification import register_classification
from simvlm_jax.data.sources import OfficialSource, OfficialSplit

FILES = {
    "snli": ("snli_1.0", ("train", "dev", "test")),
    "mnli": ("multinli_1.0", ("train", "dev_matched", "dev_mismatched")),
}

for _name, (_file, _splits) in FILES.items():
    register_classification(
        _name,
        OfficialSource(
            _name,
            {
                split: OfficialSplit((f"{_name}/{_file}_{split}.jsonl",), entailment_rows)
                for split in _splits
            },
            fields("pair_id premise hypothesis", "label"),
        ),
        inputs="{premise}",
        targets="{hypothesis}",
    )
