"""A trainer that writes down which state it was given: a digest of every array."""

import json
from pathlib import Path

import jax

from simvlm_jax import t5x_adapter
from simvlm_jax.training import digests


class Trainer(t5x_adapter.Trainer):
    def __init__(self, *, train_state, summary_dir, **kwargs):
        super().__init__(train_state=train_state, summary_dir=summary_dir, **kwargs)
        found = digests.manifest(train_state.state_dict())
        if jax.process_index() == 0:
            (Path(summary_dir) / "given.json").write_text(json.dumps(found))
