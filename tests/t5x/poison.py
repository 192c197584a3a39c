"""A stream whose third batch holds an image that is not a number."""

import numpy as np

from simvlm_jax.data.streams import GroupStream


class PoisonedStream(GroupStream):
    def batches(self, start_step=0):
        for step, batch in enumerate(super().batches(start_step), start_step):
            if step == 2:
                batch = batch | {"image": np.full_like(batch["image"], np.nan)}
            yield batch
