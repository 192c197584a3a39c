"""The numbers that make one SimVLM differ from another."""

import dataclasses
import json
from typing import Any

from simvlm_jax.errors import UserError

STYLES = ("vit", "t5")
REMAT_POLICIES = ("none", "dots", "full")
DTYPES = ("float32", "bfloat16")
# Of each count the most that is taken for meant: a file from elsewhere must not start work that
# never ends. The paper's largest model is far below each.
_COUNTS = {
    "vocabulary_size": 1 << 22,
    "width": 1 << 16,
    "decoder_layers": 1024,
    "heads": 1 << 12,
    "mlp_width": 1 << 18,
    "patch_size": 1 << 12,
    "conv_width": 1 << 14,
    "text_length": 1 << 16,
}
MOST_LAYERS, MOST_PIXELS, MOST_IMAGE_TOKENS = 1024, 1 << 13, 1 << 16  # pixels of one side


@dataclasses.dataclass(frozen=True)
class SimVLMConfig:
    """Sizes and options of the network (paper section 3.2 and appendix B.1).

    Attributes:
      vocabulary_size: rows of the token embedding, which is also the softmax (tied).
      width: model width D.
      encoder_layers: depth of the encoder; 0 in a decoder-only model.
      decoder_layers: depth of the decoder. The paper does not state it; we take the encoder's.
      heads: attention heads N; `width` must be a multiple of it.
      mlp_width: hidden width of the MLP.
      image_size: (height, width) in pixels, multiples of `patch_size`.
      patch_size: pixels per image token on each side.
      conv_layers: residual blocks per stage after the stem, at most four stages; `()` cuts the
        image into patches and projects them, as ViT does. The paper's three stages.
      conv_width: channels of the first stage's bottleneck; its output has four times as many.
      text_length: rows of the text position table, an upper bound on the tokens of one side
        (of both sides together in a decoder-only model).
      decoder_only: one trunk over image, prefix and text (the paper's ablation).
      bidirectional_prefix: False makes a decoder-only model a plain causal one ("w/ LM").
      encoder_style: 'vit' (LayerNorm, GELU, biases, learned text positions) or 't5' (T5 1.1:
        RMSNorm, gated GELU, no biases, bucketed relative positions between text tokens).
      decoder_style: the same choice for the decoder. The two may differ.
      dropout_rate: dropout after the embeddings and on each sub-layer's output.
      stochastic_depth_rate: rate at the last layer of the conv stage and of the encoder, growing
        linearly from 0 at the first.
      scan_layers: compile one layer and scan over it, instead of unrolling all.
      scan_blocks: compile one residual block of a stage and loop over the others. For TPU and GPU:
        on CPU a convolution in a loop is many times slower than outside.
      remat_policy: what the backward pass recomputes: 'none', 'dots' (keep matrix products
        without a batch dimension) or 'full' (keep only each layer's input). It is for layers:
        scanned residual blocks always keep the input only, unrolled ones everything.
      dtype: dtype of activations; parameters are always float32.
    """

    vocabulary_size: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    mlp_width: int
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    conv_layers: tuple[int, ...] = (3, 4, 23)
    conv_width: int = 64
    text_length: int = 256
    decoder_only: bool = False
    bidirectional_prefix: bool = True
    encoder_style: str = "vit"
    decoder_style: str = "vit"
    dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    scan_layers: bool = True
    scan_blocks: bool = False
    remat_policy: str = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          UserError: a value is out of range or two do not fit each other.
        """
        # JSON and gin give lists where a hashable module attribute needs tuples.
        for name in ("image_size", "conv_layers"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(map(_is_whole, value)):
                raise UserError(f"{name}={value!r} must be a tuple of whole numbers.")
            object.__setattr__(self, name, tuple(value))
        for problem in self._problems():
            raise UserError(f"The model configuration is not valid: {problem}.")

    def _problems(self) -> list[str]:
        return self._out_of_range() or self._misfits()

    def _out_of_range(self) -> list[str]:
        found = []
        for name, most in _COUNTS.items():
            value = getattr(self, name)
            if not _is_whole(value) or not 1 <= value <= most:
                found.append(f"{name}={value!r} must be a whole number from 1 to {most}")
        if not _is_whole(self.encoder_layers) or not 0 <= self.encoder_layers <= MOST_LAYERS:
            found.append(
                f"encoder_layers={self.encoder_layers!r} must be a whole number from 0 to "
                f"{MOST_LAYERS}"
            )
        if max((*self.image_size, *self.conv_layers), default=0) > MOST_PIXELS:
            found.append(
                f"image_size={self.image_size} and conv_layers={self.conv_layers} may go to "
                f"{MOST_PIXELS}"
            )
        for name in ("decoder_only", "bidirectional_prefix", "scan_layers", "scan_blocks"):
            if not isinstance(getattr(self, name), bool):
                found.append(f"{name}={getattr(self, name)!r} must be true or false")
        for name in ("dropout_rate", "stochastic_depth_rate"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                found.append(f"{name}={value!r} must be at least 0 and below 1")
        return found

    def _misfits(self) -> list[str]:
        found = []
        if self.width % self.heads:
            found.append(f"width={self.width} is not a multiple of heads={self.heads}")
        if len(self.image_size) != 2 or any(s < 1 or s % self.patch_size for s in self.image_size):
            found.append(
                f"image_size={self.image_size} must be two multiples of "
                f"patch_size={self.patch_size}"
            )
        elif self.image_tokens > MOST_IMAGE_TOKENS:
            found.append(
                f"image_size={self.image_size} with patch_size={self.patch_size} gives "
                f"{self.image_tokens} image tokens, and {MOST_IMAGE_TOKENS} are the most"
            )
        if len(self.conv_layers) > 4 or any(not 1 <= n <= MOST_LAYERS for n in self.conv_layers):
            found.append(
                f"conv_layers={self.conv_layers} must be at most four counts from 1 to "
                f"{MOST_LAYERS}"
            )
        if self.conv_layers and self.patch_size % self.conv_stride:
            found.append(
                f"patch_size={self.patch_size} is not a multiple of the conv stage's stride "
                f"{self.conv_stride}"
            )
        if self.decoder_only != (self.encoder_layers == 0):
            found.append(
                f"encoder_layers={self.encoder_layers} with decoder_only={self.decoder_only}; "
                "a decoder-only model has 0 encoder layers and any other has at least 1"
            )
        if not self.bidirectional_prefix and not self.decoder_only:
            found.append("bidirectional_prefix=False needs decoder_only=True")
        for name, allowed in (
            ("encoder_style", STYLES),
            ("decoder_style", STYLES),
            ("remat_policy", REMAT_POLICIES),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in allowed:
                found.append(f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}")
        return found

    @property
    def head_width(self) -> int:
        """Width K of one attention head."""
        return self.width // self.heads

    @property
    def grid(self) -> tuple[int, int]:
        """Image tokens as (rows, columns): 14 x 14 at 224 pixels."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def image_tokens(self) -> int:
        """Number of image tokens P."""
        return self.grid[0] * self.grid[1]

    @property
    def conv_stride(self) -> int:
        """Pixels per position of the conv stage's output.

        4 after the stem and the first stage, doubled by the second and the third. A fourth
        stage keeps stride 16, and after fewer than three a strided projection makes up for what
        is missing, so every ablation row has the same number of image tokens (the paper does
        not say how it did this).
        """
        return 4 * 2 ** (min(len(self.conv_layers), 3) - 1)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `SimVLMConfig.from_json` turns it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SimVLMConfig":
        """The configuration a dictionary describes.

        Raises:
          UserError: a key is unknown or a required one is missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"The model configuration has an unknown key: {unknown[0]!r}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"The model configuration is not complete: {error}.") from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
