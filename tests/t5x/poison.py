"""A stream whose third batch holds loss weights that are not numbers."""

import numpy as np

from simvlm_jax.data.streams import GroupStream


class PoisonedStream(GroupStream):
    def batches(self, start_step=0, groups=None):
        for step, batch in enumerate(super().batches(start_step, groups), start_step):
            if step == 2:
                weights = batch["decoder_loss_weights"]
                batch = batch | {"decoder_loss_weights": np.full_like(weights, np.nan)}
            yield batch
