"""seqio data sources whose records can be read by index, one file per format."""

from simvlm_jax.data.sources.array_record import ArrayRecordSource
from simvlm_jax.data.sources.base import Records, RecordSource, Unreadable
from simvlm_jax.data.sources.tfrecord import TFRecordSource
from simvlm_jax.data.sources.webdataset import WebDatasetSource

__all__ = [
    "ArrayRecordSource",
    "RecordSource",
    "Records",
    "TFRecordSource",
    "Unreadable",
    "WebDatasetSource",
]
