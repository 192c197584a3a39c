"""Prepares documents: cut them, write the chunks, report."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

from simvlm_jax.data.preparing import choosing, report, shards
from simvlm_jax.data.preparing.chunking import Chunking, ChunkWriting, Settings, chunk_path
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.inputs import fingerprint
from simvlm_jax.data.preparing.pairs import MOST_REFUSED_NAMED, require_fields
from simvlm_jax.data.preparing.work import Report, file_digest, read_result, run_job, write_whole
from simvlm_jax.errors import UserError


def prepare_documents(
    data_set: DataSet, settings: Settings, vocabulary: Path, workers: int, tell: Report
) -> tuple[dict, bool]:
    """Prepares documents, or verifies what an earlier run with the same settings has left.

    Args:
      data_set: what to make.
      settings: how.
      vocabulary: a SentencePiece model.
      workers: processes.
      tell: told the progress.

    Returns:
      (the summary, whether an earlier run had made it).

    Raises:
      UserError: see `DataSet` and `Input`; there is no vocabulary; or no text is left.
    """
    shards.check_share(settings.validation_share, data_set.split)
    if not vocabulary.is_file():
        raise UserError(
            f"There is no vocabulary {vocabulary}; train one with `simvlm prepare vocabulary` or "
            "name one with --vocabulary."
        )
    splits = [data_set.split, *([choosing.VALIDATION] if settings.validation_share else [])]
    records = settings.source.open()
    described = {
        **dataclasses.asdict(settings),
        "input_digest": fingerprint(records),
        "vocabulary": file_digest(vocabulary),
    }
    if found := data_set.finished(described, tuple(splits)):
        return found, True
    require_fields(records, {"field": settings.source.text_name}, settings.source.path)
    with data_set.working(described) as stage:
        chunks = stage / "chunks"
        chunks.mkdir(exist_ok=True)
        job = Chunking(settings, splits, chunks, str(vocabulary), len(records))
        run_job(job, stage / "cut", workers, tell)
        cut = [json.loads(read_result(stage / "cut", part)) for part in range(len(job.parts()))]
        refused = [json.dumps(entry) + "\n" for part in cut for entry in part["refused"]]
        text = "".join(refused[:MOST_REFUSED_NAMED])
        write_whole(data_set.file("rejected.jsonl"), text.encode())
        summary = {"settings": described, **_described(cut, splits, settings, len(records))}
        for split, count in summary["records"].items():
            if not count:
                raise UserError(
                    f"No text is left for the split {split}; see {data_set.file('rejected.jsonl')}."
                )
        facts = _write(stage, len(cut), summary["records"], settings, workers, tell)
        page = report.documents_page(data_set.folder.name, summary)
        write_whole(data_set.file("report.html"), page.encode())
        return data_set.install(stage / "shards", facts, summary), False


def _described(cut: list[dict], splits: list[str], settings: Settings, count: int) -> dict:
    causes: Counter[str] = Counter()
    for part in cut:
        causes.update(part["causes"])
    files = [file for part in cut for file in part["files"].values()]
    tokens = sum(file["tokens"] for file in files)
    shares = {}
    for how in ("joined", "apart"):
        chunks = sum(file["chunks"][how] for file in files)
        # Each chunk ends with the end of sequence.
        shares[how] = 1 - (tokens + chunks) / max(1, chunks * (settings.limit + 1))
    return {
        "outcomes": {"kept": count - causes.total(), "refused": causes.total()},
        "causes": dict(causes.most_common()),
        "records": {s: sum(part["files"][s]["records"] for part in cut) for s in splits},
        "tokens": tokens,
        "pad_share": shares,
    }


def _write(
    stage: Path,
    parts: int,
    records: dict[str, int],
    settings: Settings,
    workers: int,
    tell: Report,
) -> list[dict]:
    facts, first_id = [], 0
    for number, (split, count) in enumerate(records.items()):
        wanted = settings.shards if number == 0 else None
        counts = shards.shard_counts(count, wanted, settings.records_per_shard)
        chunks = [str(chunk_path(stage / "chunks", split, part)) for part in range(parts)]
        job = ChunkWriting(
            stage / "shards",
            split,
            counts,
            settings.output_format,
            chunks=chunks,
            first_id=first_id,
        )
        facts += job.write(stage, workers, tell)
        first_id += count
    return facts
