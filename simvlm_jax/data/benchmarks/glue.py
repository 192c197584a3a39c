"""GLUE's tables: tab-separated, without quoting, each with columns of its own."""

import dataclasses
from collections.abc import Iterator, Sequence

from simvlm_jax.data.benchmarks.entailment import LABELS
from simvlm_jax.data.benchmarks.json_files import text_lines
from simvlm_jax.data.sources.official import FAULT, Row
from simvlm_jax.errors import UserError

ENTAILED = ("entailment", "not_entailment")
BINARY = ("0", "1")


@dataclasses.dataclass(frozen=True)
class Table:
    """How one of GLUE's tasks is written.

    Attributes:
      folder: of its files.
      first: column of the first sentence.
      second: of the second; "" for tasks with one.
      label: column of the label; the test files lack it.
      labels: what stands there, in the order of class ids.
      header: of files without one (CoLA's train and dev).
    """

    folder: str
    first: str
    second: str
    label: str
    labels: tuple[str, ...] = BINARY
    header: tuple[str, ...] = ()


TABLES = {
    "cola": Table("CoLA", "sentence", "", "label", header=("source", "label", "mark", "sentence")),
    "sst2": Table("SST-2", "sentence", "", "label"),
    "rte": Table("RTE", "sentence1", "sentence2", "label", ENTAILED),
    "mrpc": Table("MRPC", "#1 String", "#2 String", "Quality"),
    "qqp": Table("QQP", "question1", "question2", "is_duplicate"),
    "mnli": Table("MNLI", "sentence1", "sentence2", "gold_label", LABELS),
    "qnli": Table("QNLI", "question", "sentence", "label", ENTAILED),
    "wnli": Table("WNLI", "sentence1", "sentence2", "label"),
}


def glue_rows(paths: Sequence[str], task: str, labelled: bool = True) -> Iterator[Row]:
    """Yields the rows of one of GLUE's official TSV files.

    A quotation mark is a letter. A row with another number of columns than the header (QQP's train
    has some) keeps its place and cannot be used.

    Args:
      paths: of the file.
      task: a name of TABLES.
      labelled: train and dev are; in test the label is -1.

    Yields:
      index (the file's own in test, else the row's number from 0), first, second, label.

    Raises:
      UserError: the file's header lacks a column.
    """
    table, lines = TABLES[task], text_lines(paths[0])
    # CoLA's test has a header, its other files have none.
    header = list(table.header) if labelled and table.header else _columns(next(lines, ""))
    needed = [name for name in (table.first, table.second, labelled and table.label) if name]
    if missing := [name for name in needed if name not in header]:
        raise UserError(
            f"{paths[0]} has no column {missing[0]!r} in its first line; bring GLUE's own file."
        )
    for number, line in enumerate(lines):
        if isinstance(line, dict):
            yield line
            continue
        values = _columns(line)
        if len(values) != len(header):
            yield {FAULT: "the row has another number of columns than the header"}
            continue
        row = dict(zip(header, values, strict=True))
        label = row[table.label] if labelled else ""
        if labelled and label not in table.labels:
            yield {FAULT: f"the column {table.label} is none of {', '.join(table.labels)}"}
            continue
        own = "" if labelled else row.get("index", "")
        yield {
            "index": int(own) if own.isdecimal() else number,
            "first": row[table.first],
            "second": row[table.second] if table.second else "",
            "label": table.labels.index(label) if labelled else -1,
        }


def _columns(line: str | Row) -> list[str]:
    return line.split("\t") if isinstance(line, str) else []
