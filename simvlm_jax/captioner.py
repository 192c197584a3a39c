"""A trained model as a captioner: images in, texts out. It needs neither gin nor TensorFlow.

Dimension letters: B images, H W their height and width, E prompt tokens, T generated tokens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sentencepiece

from simvlm_jax.attention_maps import attention_maps, word_maps
from simvlm_jax.data.pieces import open_pieces, words_of
from simvlm_jax.errors import UserError
from simvlm_jax.kinds import open_text_model
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.sharing import Replicas, copied_everywhere

EOS_ID = 1
MAX_LENGTH = 32


class Look(NamedTuple):
    """A caption, and where the decoder looked.

    Attributes:
        caption: As `Captioner.caption` gives it.
        score: Likewise.
        words: Each word with its map float32 [rows, columns], see `attention_maps`.
    """

    caption: str
    score: float
    words: list[tuple[str, np.ndarray]]


class Captioner:
    """Generates a text for each image (paper, section 4.3).

    Attributes:
        model: The network and its decoding settings.
        params: Its parameters, on all devices.
        max_length: The most tokens that it generates.
        image_size: (height, width) of the images it takes.
        prompt: The text that its run put before every caption.
    """

    def __init__(
        self,
        model: PrefixLMModel,
        params: Any,
        vocabulary: sentencepiece.SentencePieceProcessor,
        max_length: int,
    ) -> None:
        """Keeps the parts; `load` makes one from a run's folder.

        Args:
            model: The model, with its decoding settings.
            params: Its parameters.
            vocabulary: Its pieces; ids from the number of pieces on are sentinels, not text.
            max_length: T, the most tokens to generate, end of sequence included.
        """
        self._vocabulary = vocabulary
        self._text_length = model.config.text_length
        self._one_side = model.config.decoder_only
        params = copied_everywhere(params)
        self.model, self.params, self.max_length = model, params, max_length
        self._predict = Replicas(model.predict_batch_with_aux, params)
        self._maps = Replicas(
            lambda p, batch: attention_maps(model, p, batch, batch["tokens"]), params
        )
        self._batch_size = 0
        self.image_size = model.config.image_size
        self.prompt = model.prompt

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        step: int | None = None,
        beams: int | None = None,
        max_length: int | None = None,
    ) -> "Captioner":
        """Opens a run's folder.

        Args:
            model_dir: A folder with model_config.json, vocabulary.model and checkpoints.
            step: Which checkpoint; None takes the newest.
            beams: 1 decodes greedily, more by beam search; None as the run was configured.
            max_length: The most tokens to generate; None allows 32, or what the model has room for.

        Raises:
            UserError: If a file or the checkpoint is missing, or they do not belong together.
        """
        from simvlm_jax.training.folder import VOCABULARY_DIGEST, digest_of, read_config, read_file
        from simvlm_jax.training.reading import restore_params

        folder = Path(model_dir)
        values = read_config(folder)
        # A caption is the likeliest text: where the run samples, the captioner does not.
        decoding = {"temperature": 0.0} | ({} if beams is None else {"beams": beams})
        model = open_text_model(values, folder, **decoding)
        pieces = read_file(folder, "vocabulary.model")
        if values.get(VOCABULARY_DIGEST, digest_of(pieces)) != digest_of(pieces):
            raise UserError(
                f"{folder / 'vocabulary.model'} is not the vocabulary that the model was trained "
                "with: bring that back."
            )
        vocabulary = open_pieces(pieces, folder / "vocabulary.model")
        _require_room(folder, vocabulary, model)
        params = restore_params(folder, step)
        _require_same_shapes(folder, model, params)
        return cls(
            model, params, vocabulary, max_length or min(MAX_LENGTH, model.config.text_length)
        )

    def rows(self, count: int) -> list[int]:
        """Which of a batch of so many images this process must know; all, if it is alone.

        It may be asked before earlier batches are captioned: asking counts as a batch of this size.
        """
        self._batch_size = self._size(count)
        return [row for row in self._predict.rows(self._batch_size).tolist() if row < count]

    def _size(self, count: int) -> int:
        return max(self._batch_size, count)

    def caption(self, images: np.ndarray, prompt: str) -> list[tuple[str, float]]:
        """Generates after the image and a prompt.

        A batch smaller than the largest one so far is filled up to it with blank images, so that
        only one shape is compiled. Of several processes all call it, and all get all texts.

        Args:
            images: uint8 [B, H, W, 3]; those that are not in `rows` may be anything.
            prompt: Text for the encoder, after the image; it may be empty.

        Returns:
            For each image its text, without the prompt, and the text's log probability (divided by
            the length penalty when searching with beams).

        Raises:
            UserError: If the prompt or the output is longer than the model's text positions.
        """
        tokens, scores = self._generate(self._batch(images, prompt))
        texts = [self._text(row) for row in tokens[: len(images)].tolist()]
        return list(zip(texts, scores.tolist(), strict=False))

    def look(self, images: np.ndarray, prompt: str) -> list[Look]:
        """`caption`, and where the decoder looked for each word, by one more pass of the network.

        Args:
            images: As for `caption`.
            prompt: Likewise.
        """
        batch = self._batch(images, prompt)
        tokens, scores = self._generate(batch)
        maps = self._maps(batch | {"tokens": tokens[: self._batch_size]})
        found = zip(tokens.tolist(), scores.tolist(), maps, strict=False)
        return [
            Look(self._text(ids), score, word_maps(of_image, words_of(ids, self._vocabulary)))
            for ids, score, of_image in list(found)[: len(images)]
        ]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt; of an empty one a single pad."""
        return self._vocabulary.EncodeAsIds(prompt) or [0]

    def _generate(self, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        tokens, aux = self._predict(batch)
        return tokens, aux["scores"]

    def _batch(self, images: np.ndarray, prompt: str) -> dict[str, np.ndarray]:
        """What the network reads, filled up to the largest batch so far."""
        prompt_ids = self.prompt_ids(prompt)
        self._require_length(len(prompt_ids))
        self._batch_size = self._size(len(images))
        missing = self._batch_size - len(images)
        return {
            "image": np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)]),
            "encoder_input_tokens": np.tile(np.int32(prompt_ids), (self._batch_size, 1)),
            # Only its shape counts: it says how much may be generated.
            "decoder_input_tokens": np.zeros((self._batch_size, self.max_length), np.int32),
        }

    def _text(self, ids: Sequence[int]) -> str:
        """Decodes up to the end of sequence, leaving out sentinels and padding.

        Example, with 8 pieces: [5, 9, 6, 1, 0] is the text of [5, 6].
        """
        ids = ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids
        pieces = self._vocabulary.GetPieceSize()
        return self._vocabulary.DecodeIds([i for i in ids if 0 < i < pieces])

    def _require_length(self, prompt_length: int) -> None:
        room = self._text_length - (prompt_length if self._one_side else 0)
        if prompt_length > self._text_length or self.max_length > room:
            raise UserError(
                f"The model has {self._text_length} text positions: a prompt of {prompt_length} "
                f"tokens and an output of {self.max_length} do not fit, make one of them shorter."
            )


def _require_room(
    folder: Path, vocabulary: sentencepiece.SentencePieceProcessor, model: PrefixLMModel
) -> None:
    pieces, rows = vocabulary.GetPieceSize(), model.config.vocabulary_size
    if pieces > rows:
        raise UserError(
            f"{folder / 'vocabulary.model'} has {pieces} pieces, but the model was trained with at "
            f"most {rows}: bring back the vocabulary it was trained with."
        )


def _require_same_shapes(folder: Path, model: PrefixLMModel, params: Mapping[str, Any]) -> None:
    expected = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), {})["params"])
    if jax.tree.map(np.shape, expected) != jax.tree.map(np.shape, params):
        raise UserError(
            f"{folder / 'model_config.json'} describes another network than the checkpoint holds: "
            "bring back the file it was trained with."
        )
