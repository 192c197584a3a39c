"""SimVLM as a model object with T5X's protocol, which our own loop uses as well.

T5X calls these methods on whatever object a gin file names; nothing here imports T5X.

Dimension letters: G groups, M examples of one kind in a group, B = G * M examples, H W image
height and width, E prefix tokens, T decoder tokens, V vocabulary.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from simvlm_jax import decoding, objectives
from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.flops import forward_flops
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.protocol import STREAMS, Batch, NetworkModel, Sum, split_streams


class PrefixLMModel(NetworkModel):
    """A SimVLM network with its loss, decoding and initial variables.

    Attributes:
      config: the network's sizes and options.
      network: the Flax module.
      optimizer_def: what T5X's trainer reads; our loop is given its optimizer apart.
    """

    def __init__(
        self,
        config: SimVLMConfig,
        nominal_batch_size: int = 1,
        optimizer_def: Any = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        beams: int = 1,
        length_penalty: float = 0.6,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        prompt: str = "",
    ) -> None:
        """Keeps the parts.

        Args:
          config: the network.
          nominal_batch_size: leading size of a whole training batch (groups G, or examples).
            The loss is a sum over tokens divided by the examples of such a batch, a constant:
            summed microbatch gradients then equal those of the whole batch.
          optimizer_def: for T5X only.
          label_smoothing: see `objectives.token_sums`.
          z_loss: see `objectives.token_sums`.
          beams: 1 decodes greedily, more by beam search.
          length_penalty: exponent of beam search's length penalty.
          temperature: above 0 samples instead, and keeps the likeliest of `beams` draws.
          top_k: sample among the k likeliest tokens only; 0 means all.
          top_p: sample among the likeliest tokens that hold this probability.
          prompt: text put into the encoder before a caption is generated.
        """
        super().__init__(SimVLM(config), nominal_batch_size, optimizer_def)
        self.label_smoothing, self.z_loss = label_smoothing, z_loss
        self.decoding = dict(
            beams=beams,
            length_penalty=length_penalty,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        self.prompt = prompt

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint carries to be opened without gin or seqio."""
        return {"network": self.config.to_json(), "decoding": self.decoding, "prompt": self.prompt}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], **decoding_options: Any) -> "PrefixLMModel":
        """The model that `to_json` described; `decoding_options` override its decoding.

        Raises:
          UserError: the values describe none.
        """
        network, settings, prompt = (values.get(n) for n in ("network", "decoding", "prompt"))
        if not isinstance(network, dict) or not isinstance(settings, dict):
            raise UserError("The model configuration has no network or no decoding: see to_json.")
        if not isinstance(prompt, str):
            raise UserError(f"The model configuration has the prompt {prompt!r}, which is no text.")
        settings = {**decoding.checked_settings(settings), **decoding_options}
        return cls(SimVLMConfig.from_json(network), prompt=prompt, **settings)

    def _logits(
        self, params, streams: Sequence[Batch], dropout_rng: jax.Array | None
    ) -> list[jax.Array]:
        """Logits of every stream, in one pass over the network."""
        names = ("encoder_input_tokens", "decoder_input_tokens")
        return self.network.apply(
            {"params": params},
            [(batch.get("image"), *(batch[name] for name in names)) for batch in streams],
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
            method="several",
        )

    def _sums(
        self, params, streams: Sequence[Batch], rng: jax.Array | None
    ) -> objectives.TokenSums:
        """Token sums over every stream of a batch."""
        logits = self._logits(params, streams, rng)
        with jax.named_scope("loss"):
            totals = [
                objectives.token_sums(
                    of_stream,
                    stream["decoder_target_tokens"],
                    stream["decoder_loss_weights"],
                    self.label_smoothing,
                    self.z_loss,
                )
                for of_stream, stream in zip(logits, streams, strict=True)
            ]
            return jax.tree.map(lambda *parts: sum(parts), *totals)

    def loss_fn(
        self, params, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, dict[str, clu_metrics.Metric]]:
        """The training loss of a batch or microbatch.

        Args:
          params: parameters.
          batch: leaves [G, M, ...] (see `split_streams`) or [B, ...].
          dropout_rng: None turns dropout and stochastic depth off.

        Returns:
          Scalar loss: token sum over the nominal number of examples of a whole batch; and
          metrics: 'loss' (nats per real token), 'accuracy', 'tokens', 'examples'.
        """
        streams = split_streams(batch)
        sums = self._sums(params, streams, dropout_rng)
        examples, constant = self.count_examples(batch, streams)
        average = clu_metrics.Average
        metrics = {
            "loss": average(total=sums.negative_log_likelihood, count=sums.tokens),
            "accuracy": average(total=sums.correct, count=sums.tokens),
            "tokens": Sum(total=sums.tokens),
            "examples": Sum(total=jnp.float32(examples)),
        }
        return sums.loss / constant, metrics

    def score_batch(self, params, batch: Batch, return_intermediates: bool = False) -> jax.Array:
        """Log probability of each example's target, float32 [B], summed over real tokens."""
        del return_intermediates
        (logits,) = self._logits(params, [batch], None)
        targets = batch["decoder_target_tokens"]
        log_probabilities = objectives.token_log_probabilities(logits, targets)
        return jnp.sum(log_probabilities * batch["decoder_loss_weights"], axis=1)

    def predict_batch(self, params, batch: Batch, rng: jax.Array | None = None) -> jax.Array:
        """Generated tokens int32 [B, T], 0 after the end; see `predict_batch_with_aux`."""
        return self.predict_batch_with_aux(params, batch, rng)[0]

    def predict_batch_with_aux(
        self, params, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Generates after the batch's prefix, by the model's decoding settings.

        Args:
          params: parameters.
          batch: plain leaves [B, ...]; 'decoder_input_tokens' [B, T] only gives the longest
            output, T.
          rng: needed when sampling.

        Returns:
          Tokens int32 [B, T] and {'scores': float32 [B]}: log probability, divided by the
          length penalty when searching with beams.
        """
        settings = self.decoding
        size, length = batch["decoder_input_tokens"].shape
        apply = functools.partial(self.network.apply, {"params": params})
        prefix = apply(batch.get("image"), batch["encoder_input_tokens"], method="start")
        beams = settings["beams"]
        cache = decoding.Cache(prefix, self.network.empty_cache(size, beams, length))

        def step(tokens, index, cache):
            logits, own = apply(tokens, index, cache.shared, cache.beams, method="step")
            return logits, decoding.Cache(cache.shared, own)

        if settings["temperature"] > 0:
            if rng is None:
                raise UserError("Sampling (temperature above 0) needs a random key.")
            options = {k: settings[k] for k in ("temperature", "top_k", "top_p")}
            tokens, scores = decoding.sample(
                step, cache, size, length, rng, samples=beams, **options
            )
        elif beams > 1:
            tokens, scores = decoding.beam_search(
                step, cache, size, beams, length, length_penalty=settings["length_penalty"]
            )
        else:
            tokens, scores = decoding.greedy(step, cache, size, length)
        return tokens[:, 0], {"scores": scores[:, 0]}

    def train_flops(self, input_shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Floating-point operations of forward and backward over a batch of these shapes."""
        total = 0.0
        for prefix in STREAMS:
            shape = input_shapes.get(f"{prefix}decoder_target_tokens")
            if shape is None:
                continue
            encoder = input_shapes[f"{prefix}encoder_input_tokens"][-1]
            one = forward_flops(self.config, encoder, shape[-1], f"{prefix}image" in input_shapes)
            total += 3.0 * math.prod(shape[:-1]) * one
        return total
