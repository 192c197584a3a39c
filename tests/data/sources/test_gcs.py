"""Both sources from a bucket: the same records in the same order, and troubles that are named."""

import functools

import fsspec
import pytest
import tensorflow as tf
import webdataset

import gcs_stand_in
from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources import TFRecordSource, Unreadable, WebDatasetSource, files
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
FIELDS = {"image/encoded": STRING, "caption": STRING}
SHARDS, EACH = 3, 5


def image(number):
    return bytes([number, 0, 255]) * (700 + number)


def write_tfrecord(path, numbers):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for n in numbers:
            writer.write(encode_example({"image/encoded": image(n), "caption": f"picture {n}"}))


def write_tar(path, numbers):
    with webdataset.TarWriter(str(path)) as writer:
        for n in numbers:
            writer.write({"__key__": f"{n:06}", "jpg": image(n), "txt": f"picture {n}"})


FORMATS = {
    "tfrecord": (write_tfrecord, functools.partial(TFRecordSource, features=FIELDS)),
    "tar": (write_tar, WebDatasetSource),
}


@pytest.fixture(params=FORMATS)
def bucket(request, tmp_path, monkeypatch):
    """(store, remote source, local source, suffix) of one format."""
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    write, make = FORMATS[request.param]
    with gcs_stand_in.serving() as store:
        for shard in range(SHARDS):
            path = tmp_path / f"photos-{shard:05}-of-{SHARDS:05}.{request.param}"
            write(path, range(shard * EACH, (shard + 1) * EACH))
            store.put(f"gs://bucket/deep/{path.name}", path.read_bytes())
        store.put("gs://bucket/deep/photos/another.tar", b"in a folder of the same name")
        pattern = f"photos-*.{request.param}"
        remote = make("photos", {"train": f"gs://bucket/deep/{pattern}"})
        yield store, remote, make("photos", {"train": str(tmp_path / pattern)}), request.param


def path_of(shard, suffix):
    return f"gs://bucket/deep/photos-{shard:05}-of-{SHARDS:05}.{suffix}"


def test_the_same_records_in_the_same_order(bucket, tmp_path):
    store, remote, local, suffix = bucket
    assert remote.list_shards("train") == [path_of(shard, suffix) for shard in range(SHARDS)]
    wanted = local.random_access("train").read(range(SHARDS * EACH))
    records = remote.random_access("train")
    assert records.read(range(SHARDS * EACH)) == wanted
    assert records.read([11, 0, 11, 7]) == [wanted[i] for i in (11, 0, 11, 7)]
    captions = [
        example["caption"].decode()
        for example in remote.get_dataset("train", shuffle=False).as_numpy_iterator()
    ]
    assert captions == [f"picture {n}" for n in range(SHARDS * EACH)]
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == SHARDS


def test_shards_are_indexed_once_and_records_read_alone(bucket):
    store, remote, _, _ = bucket
    remote.random_access("train")
    store.downloads.clear()
    records = remote.random_access("train")
    assert store.downloads == []
    records.read([1, 8])
    ranges = [wanted.removeprefix("bytes=").split("-") for _, wanted in store.downloads]
    assert len(ranges) == 2
    assert all(int(last) - int(first) < 10_000 for first, last in ranges)


def test_an_index_beside_the_shards_is_taken(bucket, tmp_path):
    store, remote, local, suffix = bucket
    local.random_access("train")
    for index in tmp_path.glob("*.index"):
        store.put(f"gs://bucket/deep/{index.name}", index.read_bytes())
    records = remote.random_access("train")
    assert {name.rsplit(".")[-1] for name, _ in store.downloads} == {"index"}
    assert not any(isinstance(record, Unreadable) for record in records.read(range(SHARDS * EACH)))
    assert remote.list_shards("train") == list(records.shards)  # a glob finds no indexes


def test_a_cut_index_beside_the_shards_does_not_stay(bucket, tmp_path):
    store, remote, local, suffix = bucket
    local.random_access("train")
    for index in tmp_path.glob("*.index"):
        store.put(f"gs://bucket/deep/{index.name}", index.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"index gs://bucket/deep/photos-0000\d\S* is cut short"):
        remote.random_access("train")
    for index in tmp_path.glob("*.index"):
        store.put(f"gs://bucket/deep/{index.name}", index.read_bytes())
    assert len(remote.random_access("train")) == SHARDS * EACH


def causes(records):
    found = records.read(range(SHARDS * EACH))
    return {i: record.cause for i, record in enumerate(found) if isinstance(record, Unreadable)}


def test_troubles_after_the_opening_have_causes(bucket):
    store, remote, _, suffix = bucket
    records = remote.random_access("train")
    whole = {shard: store.objects["bucket", path_of(shard, suffix)[12:]] for shard in range(SHARDS)}
    start = whole[0].index(image(3)) + 100
    store.put(path_of(0, suffix), whole[0][:start] + b"altered" + whole[0][start + 7 :])
    store.put(path_of(1, suffix), whole[1][: whole[1].index(image(7)) + 5])
    store.delete(path_of(2, suffix))
    changed, cut, gone = (
        "the bytes of the record have changed since their checksum was made",
        "the shard ends early",
        "the shard has vanished",
    )
    assert causes(records) == (
        {3: changed} | dict.fromkeys((7, 8, 9), cut) | dict.fromkeys(range(10, 15), gone)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda store, path: store.delete(path), "There is no shard {}"),
        (lambda store, path: store.put(path, b"short"), "The shard {} has 5 bytes and had"),
    ],
)
def test_troubles_before_the_opening_are_named(bucket, change, sentence):
    store, remote, _, suffix = bucket
    shards = remote.list_shards("train")
    remote.open(shards)
    fsspec.filesystem("gs").ls("gs://bucket/deep")  # what it keeps of this must not answer
    change(store, shards[1])
    with pytest.raises(UserError, match=sentence.format(shards[1])):
        remote.open(shards)


def test_a_vanished_shard_is_missed_by_a_glob(bucket):
    store, remote, _, suffix = bucket
    store.delete(path_of(1, suffix))
    with pytest.raises(UserError, match="should have 3 files .* has 2"):
        remote.random_access("train")


def test_one_failure_is_asked_again_and_two_are_a_cause(bucket):
    store, remote, _, _ = bucket
    records = remote.random_access("train")
    store.failures = 1
    assert causes(records) == {}
    store.failures = 1 << 30
    assert set(causes(records).values()) == {"the shard cannot be read"}


def test_a_silent_store_does_not_hang(bucket, monkeypatch):
    store, remote, _, _ = bucket
    records = remote.random_access("train")
    monkeypatch.setattr(files, "ANSWER_SECONDS", 0.2)
    store.stall = 1.5
    assert set(causes(records).values()) == {"the shard cannot be read"}


def test_nothing_in_the_bucket(bucket):
    source = WebDatasetSource("photos", {"train": "gs://bucket/none-*.tar"})
    with pytest.raises(UserError, match="nothing is found at gs://bucket/none-"):
        source.random_access("train")
    source = WebDatasetSource("photos", {"train": "gs://bucket/none.tar"})
    with pytest.raises(UserError, match="no shard gs://bucket/none"):
        source.random_access("train")


def test_the_same_objects_over_http(bucket, tmp_path, monkeypatch):
    store, remote, local, _ = bucket
    base = fsspec.config.conf["gs"]["endpoint_url"] + "/download/storage/v1/b/bucket/o/deep%2F"
    shards = [base + shard.rsplit("/", 1)[-1] + "?alt=media" for shard in remote.shards("train")]
    wanted = local.random_access("train").read(range(SHARDS * EACH))
    assert remote.open(shards).read(range(SHARDS * EACH)) == wanted
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == SHARDS
    for index in tmp_path.glob("*.index"):
        store.put(f"gs://bucket/deep/{index.name}", index.read_bytes())
    store.downloads.clear()
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "another"))
    assert len(remote.open(shards)) == SHARDS * EACH
    read = [name for name, wanted in store.downloads if wanted]  # without one, only the size
    assert len(read) == SHARDS and all(name.endswith(".index") for name in read)
    with pytest.raises(UserError, match="no shard http://.*nothing"):
        remote.open([base + "nothing"])


def test_a_store_that_is_silent_at_the_opening(bucket, monkeypatch):
    store, remote, _, _ = bucket
    shards = remote.list_shards("train")
    monkeypatch.setattr(files, "ANSWER_SECONDS", 0.2)
    store.stall = 1.5
    with pytest.raises(UserError, match="cannot be indexed: the shard cannot be read"):
        remote.open(shards)
