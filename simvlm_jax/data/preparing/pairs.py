"""Prepares image-text pairs: examine every record, choose, write shards, report."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simvlm_jax.data.preparing import choosing, examples, report, shards
from simvlm_jax.data.preparing.choosing import Findings
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.examining import KEPT, REFUSED, Examination, Filters
from simvlm_jax.data.preparing.inputs import CAPTION, IMAGE, Input, fingerprint, spread
from simvlm_jax.data.preparing.work import Report, file_digest, run_job, write_whole
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError

RECORDS_PROBED = 64
MOST_REFUSED_NAMED = 10_000
MOST_FREQUENT = 20
QUANTITIES = ("width", "height", "aspect", "bytes", "characters", "tokens")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that the bytes of a data set of pairs depend on.

    Attributes:
      source: what to read.
      filters: which pairs are kept.
      duplicates: one of choosing.DUPLICATES.
      validation_share: of all images, how many go to the split "validation".
      seed: of that choice, and of the report's sample.
      output_format: one of shards.OUTPUT_FORMATS.
      shards: how many files for the main split, or None.
      records_per_shard: at most so many records in a file, or None.
    """

    source: Input
    filters: Filters = Filters()
    duplicates: str = "keep"
    validation_share: float = 0.0
    seed: int = 0
    output_format: str = "array_record"
    shards: int | None = None
    records_per_shard: int | None = None

    def check(self, split: str) -> None:
        """Refuses what no data set can have.

        Raises:
          UserError: a value is out of its range.
        """
        shards.check_share(self.validation_share, split)
        if taken := {"id", IMAGE, CAPTION} & {*self.source.keep}:
            raise UserError(f"--keep={min(taken)} names a field that every record has anyway.")
        if self.shards and self.records_per_shard:
            raise UserError("Give --shards or --records_per_shard, not both.")
        if self.filters.min_caption > self.filters.max_caption:
            raise UserError(
                f"--min_caption={self.filters.min_caption} is above "
                f"--max_caption={self.filters.max_caption}: no caption could be kept."
            )
        if self.filters.max_aspect < 1:
            raise UserError(f"--max_aspect must be at least 1, not {self.filters.max_aspect}.")


def prepare_pairs(
    data_set: DataSet, settings: Settings, vocabulary: Path, workers: int, tell: Report
) -> tuple[dict, bool]:
    """Prepares a data set, or verifies what an earlier run with the same settings has left.

    Args:
      data_set: what to make.
      settings: how.
      vocabulary: counts the captions' tokens for the report, if it is there.
      workers: processes.
      tell: told the progress.

    Returns:
      (the summary, whether an earlier run had made it).

    Raises:
      UserError: see `Settings.check`, `DataSet` and `Input`; or nothing can be kept.
    """
    settings.check(data_set.split)
    splits = (data_set.split, choosing.VALIDATION) if settings.validation_share else ()
    records = settings.source.open()
    described = {**dataclasses.asdict(settings), "input_digest": fingerprint(records)}
    if found := data_set.finished(described, splits or (data_set.split,)):
        return found, True
    wanted = {"image_field": settings.source.image_name}
    wanted |= {"caption_field": settings.source.text_name}
    wanted |= {f"keep={name}": name for name in settings.source.keep}
    require_fields(records, wanted, settings.source.path)
    model = str(vocabulary) if vocabulary.is_file() else ""
    key = {**described, "vocabulary": file_digest(vocabulary) if model else ""}
    with data_set.working(key) as stage:
        job = Examination(settings.source, settings.filters, model, len(records))
        run_job(job, stage / "examined", workers, tell)
        findings = choosing.gather(stage / "examined", len(records))
        choosing.mark_duplicates(findings, settings.duplicates)
        chosen = choosing.split(findings, data_set.split, settings.validation_share, settings.seed)
        _write_refused(data_set.file("rejected.jsonl"), findings, records)
        _require_some(data_set, findings, chosen)
        facts = []
        for split, indices in chosen.items():
            facts += _write_split(stage, split, indices, settings, data_set.split, workers, tell)
        summary = {
            "settings": described,
            "outcomes": findings.counts(),
            "causes": findings.counts_by_cause(),
            "records": {split: len(indices) for split, indices in chosen.items()},
            "distributions": distributions(findings),
            "formats": _formats(findings),
            "frequent_captions": _frequent(findings, records, settings.source),
        }
        page = report.pairs_page(data_set.folder.name, summary, findings, records, settings)
        write_whole(data_set.file("report.html"), page.encode())
        return data_set.install(stage / "shards", facts, summary), False


def require_fields(records: Records, wanted: Mapping[str, str], path: str) -> None:
    """Looks at some records, for a field that is nowhere is a slip of the command line.

    Args:
      records: the input.
      wanted: flag to the name of a field.
      path: of the input.

    Raises:
      UserError: there is no record, or a field that none of those has.
    """
    if not len(records):
        raise UserError(f"There is no record at --input={path}.")
    found = [_fields(records, int(index)) for index in spread(len(records), RECORDS_PROBED)]
    known = [names for names in found if not isinstance(names, Unreadable)]
    if not known:
        flags = dict.fromkeys(flag.partition("=")[0] for flag in wanted)
        cause, _ = Counter(bad.cause for bad in found).most_common(1)[0]
        raise UserError(
            f"The records of {path} cannot be used: {cause}; look at them with `simvlm inspect "
            f"data`, and choose with --{' or --'.join(flags)}."
        )
    seen = set().union(*known)
    for flag, name in wanted.items():
        if name not in seen:
            raise UserError(
                f"The records of {path} have no field {name!r}; they have "
                f"{', '.join(sorted(seen)) or 'none'}: choose with --{flag.partition('=')[0]}."
            )


def _fields(records: Records, index: int) -> list[str] | Unreadable:
    example = examples.parse(records.read([index])[0])
    return example if isinstance(example, Unreadable) else examples.names(example)


def distributions(findings: Findings) -> dict[str, dict]:
    """Returns percentiles and a histogram of each quantity over the kept records."""
    rows = findings.rows
    kept = rows["outcome"] == KEPT
    found = {}
    for name in QUANTITIES:
        if name == "aspect":
            values = rows["width"][kept] / rows["height"][kept]
        else:
            values = rows[name][kept]
        if name != "tokens" or (len(values) and values.min() >= 0):
            found[name] = report.distribution(values)
    return found


def _formats(findings: Findings) -> dict[str, int]:
    kept = findings.rows["format"][findings.rows["outcome"] == KEPT]
    names, counts = np.unique(kept, return_counts=True)
    return {name.decode(): int(count) for name, count in zip(names, counts, strict=True)}


def _frequent(findings: Findings, records: Records, source: Input) -> list[list]:
    """The most frequent captions and their counts; ties by their first record."""
    kept = np.flatnonzero(findings.rows["outcome"] == KEPT)
    _, first, counts = np.unique(findings.rows["text"][kept], return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))[:MOST_FREQUENT]
    found = []
    for position in order:
        (record,) = records.read([int(kept[first[position]])])
        caption = examples.text(examples.parse(record), source.text_name)
        found.append([report.shortened(caption), int(counts[position])])
    return found


def _write_refused(path: Path, findings: Findings, records: Records) -> None:
    """Names the refused records; their number is bounded, all of them are in the counts."""
    refused = np.flatnonzero(findings.rows["outcome"] == REFUSED)[:MOST_REFUSED_NAMED]
    lines = []
    for index in refused:
        shard, key = records.name(int(index))
        cause = findings.causes[findings.rows["cause"][index]]
        lines.append(json.dumps({"shard": shard, "key": key, "cause": cause}) + "\n")
    write_whole(path, "".join(lines).encode())


def _require_some(data_set: DataSet, findings: Findings, chosen: dict[str, np.ndarray]) -> None:
    for split, indices in chosen.items():
        if not len(indices):
            causes = Counter(findings.counts_by_cause()).most_common(3)
            told = "; ".join(f"{count}: {cause}" for cause, count in causes)
            raise UserError(
                f"None of the {len(findings.rows)} records is left for the split {split} "
                f"({told or 'the share is too small'}); see {data_set.file('rejected.jsonl')}."
            )


def _write_split(
    stage: Path,
    split: str,
    indices: np.ndarray,
    settings: Settings,
    main: str,
    workers: int,
    tell: Report,
) -> list[dict]:
    chosen = stage / f"{split}.npy"
    np.save(chosen, indices)
    count = settings.shards if split == main else None
    counts = shards.shard_counts(len(indices), count, settings.records_per_shard)
    job = shards.PairWriting(
        stage / "shards",
        split,
        counts,
        settings.output_format,
        source=settings.source,
        chosen=chosen,
    )
    return job.write(stage, workers, tell)
