"""seqio data sources whose records can be read by index, one file per format."""

from simvlm_jax.data.sources.array_record import ArrayRecordSource
from simvlm_jax.data.sources.base import Records, RecordSource, Unreadable
from simvlm_jax.data.sources.csv_rows import CSVSource
from simvlm_jax.data.sources.folder import FolderSource
from simvlm_jax.data.sources.json_lines import JSONLinesSource
from simvlm_jax.data.sources.official import OfficialSource, OfficialSplit
from simvlm_jax.data.sources.parquet import ParquetSource
from simvlm_jax.data.sources.text import TextSource
from simvlm_jax.data.sources.tfds import TFDSSource
from simvlm_jax.data.sources.tfrecord import TFRecordSource
from simvlm_jax.data.sources.webdataset import WebDatasetSource

__all__ = [
    "ArrayRecordSource",
    "CSVSource",
    "FolderSource",
    "JSONLinesSource",
    "OfficialSource",
    "OfficialSplit",
    "ParquetSource",
    "RecordSource",
    "Records",
    "TFDSSource",
    "TFRecordSource",
    "TextSource",
    "Unreadable",
    "WebDatasetSource",
]
