"""The rows of the paper's ablation: what each changes, and what the paper measured of it."""

import dataclasses
from collections.abc import Sequence

from simvlm_jax.errors import UserError

BASE = "base"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
      name: of its folder, and for --rows.
      title: as the paper calls it.
      paper: the paper's VQA score of SimVLM-small (section 4.4).
      pretrains: whether there is a pretraining at all.
      differs: what it differs by from the base row, in a few words.
    """

    name: str
    title: str
    paper: float
    pretrains: bool = True
    differs: str = ""

    @property
    def gin_files(self) -> tuple[str, ...]:
        """What is read after `ablations/pretraining.gin`: a file of the row's name, but two."""
        return () if self.name in (BASE, "no_pretraining") else (f"ablations/{self.name}.gin",)


ROWS = (
    Row(BASE, "3 conv blocks, PrefixLM, all data", 67.43),
    Row("no_pretraining", "no pretraining", 49.70, False, "questions from fresh parameters"),
    Row("decoder_only_tiny", "decoder-only", 65.23, True, "one trunk of 4 layers, not 2 + 2"),
    Row("decoder_only_lm_tiny", "decoder-only with LM", 64.48, True, "the same trunk, all causal"),
    Row("span_corruption", "with span corruption", 66.23, True, "in place of PrefixLM"),
    Row("without_image2text", "without image2text", 49.23, True, "documents only"),
    Row("without_text2text", "without text2text", 65.25, True, "pairs only"),
    Row("without_conv_stage", "without conv stage", 63.11, True, "patches of 16 x 16 pixels"),
    Row("two_blocks", "2 conv blocks", 65.57, True, "stride 8, then a strided projection"),
    Row("four_blocks", "4 conv blocks", 66.55, True, "the fourth keeps stride 16"),
    Row("ten_percent", "10 % of ALIGN", 66.71, True, "a seeded tenth of the noisy pairs"),
    Row("small_clean_data", "CC-3M instead of ALIGN", 63.32, True, "a twentieth, without noise"),
)


def chosen_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names in the table's order; none given means all.

    The base row is always among them, since every other one is compared with it.

    Raises:
      UserError: there is no such row.
    """
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"The ablation has no row {unknown[0]!r}; its rows are {', '.join(known)}.")
    return tuple(row for row in ROWS if not names or row.name in (BASE, *names))
