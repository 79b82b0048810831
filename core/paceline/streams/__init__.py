"""Data that come in files too big for one machine: tar files, parquet files, text files, anywhere that fsspec reaches.

A job's `shards()` gives a `Shards`: the list of its files with the samples in each, and how one of them is opened.
"""

from paceline.streams.cache import ShardCache, ShardError
from paceline.streams.index import read_index, write_index
from paceline.streams.readers import Lines, ParquetRows, TarSamples
from paceline.streams.shards import Shard, Shards, use_cache

__all__ = [
    "Lines",
    "ParquetRows",
    "Shard",
    "ShardCache",
    "ShardError",
    "Shards",
    "TarSamples",
    "read_index",
    "use_cache",
    "write_index",
]
