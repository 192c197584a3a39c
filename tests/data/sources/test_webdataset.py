import io
import json
import tarfile

import numpy as np
import pytest
import seqio
import tensorflow as tf
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources import Unreadable, WebDatasetSource
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
INTEGER = tf.io.FixedLenFeature([], tf.int64)
FLOAT = tf.io.FixedLenFeature([], tf.float32)


def write(path, samples):
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:09}", **sample})


def write_members(path, members, form=tarfile.PAX_FORMAT):
    """Members are (name, content) or a TarInfo."""
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                information = tarfile.TarInfo(member[0])
                information.size = len(member[1])
                archive.addfile(information, io.BytesIO(member[1]))


def source(*paths, **options):
    return WebDatasetSource("photos", {"train": [str(path) for path in paths]}, **options)


def parsed(source):
    """What each record holds, or its cause."""
    records = source.random_access("train")
    found = records.read(range(len(records)))
    return [
        record.cause
        if isinstance(record, Unreadable)
        else {k: v.numpy() for k, v in source.parse(tf.constant(record), 0).items() if k != "id"}
        for record in found
    ]


def pair(image, caption):
    return {"image/encoded": image, "caption": caption}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2000), st.text(max_size=20)), max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_random_access_equals_what_webdataset_reads(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    for number, samples in enumerate(shards):
        rows = [{"jpg": generator.bytes(size), "txt": text} for size, text in samples]
        write(folder / f"{number}.tar", rows)
    made = source(*sorted(folder.glob("*.tar")))
    paths = made.list_shards("train")
    library = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
    wanted = [(sample["__key__"], pair(sample["jpg"], sample["txt"])) for sample in library]
    records = made.random_access("train")
    assert len(records) == len(wanted)
    order = generator.permutation(len(wanted))
    found = [made.parse(tf.constant(record), 3) for record in records.read(order)]
    assert [pair(e["image/encoded"].numpy(), e["caption"].numpy()) for e in found] == [
        wanted[index][1] for index in order
    ]
    assert [records.name(index)[1] for index in order] == [wanted[index][0] for index in order]


def test_samples_as_img2dataset_writes_them(tmp_path):
    details = {"key": "000000007", "width": 12, "similarity": 0.25, "status": "success"}
    write(tmp_path / "a.tar", [{"jpg": b"image", "txt": "ein Bär", "json": details}])
    features = {"image/encoded": STRING, "caption": STRING, "width": INTEGER}
    features |= {"similarity": FLOAT, "key": STRING}
    made = source(tmp_path / "a.tar", features=features, json=("width", "similarity", "key"))
    assert parsed(made) == [
        pair(b"image", "ein Bär".encode()) | {"width": 12, "similarity": 0.25, "key": b"000000007"}
    ]
    assert parsed(source(tmp_path / "a.tar", json=["status"])) == [
        pair(b"image", "ein Bär".encode()) | {"status": b"success"}
    ]


def test_members_that_the_library_passes_over(tmp_path):
    folder = tarfile.TarInfo("sub.d")
    folder.type = tarfile.DIRTYPE
    members = [("README", b"no sample"), ("__meta__/x.txt", b"no sample"), folder]
    members += [("sub.d/0.JPG", b"0"), folder, ("sub.d/0.txt", b"zero"), ("sub.d/0.a.jpg", b"-")]
    members += [("__info__", b""), ("1.png", b"1"), ("1.txt", b"one"), (".hidden", b"no sample")]
    write_members(tmp_path / "a.tar", members)
    library = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False)
    made = source(tmp_path / "a.tar")
    assert parsed(made) == [pair(b"0", b"zero"), pair(b"1", b"one")]
    keys = [made.random_access("train").name(index)[1] for index in range(2)]
    assert keys == [sample["__key__"] for sample in library] == ["sub.d/0", "1"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_and_foreign_names(tmp_path, form):
    stem = "ordner/" * (12 if form == tarfile.USTAR_FORMAT else 60) + "übung"
    write_members(
        tmp_path / "a.tar",
        [("0.jpg", b"0"), ("0.txt", b"zero")]
        + [(f"{stem}{i}.{end}", f"{end}{i}".encode()) for i in range(2) for end in ("jpg", "txt")],
        form,
    )
    made = source(tmp_path / "a.tar")
    assert parsed(made) == [pair(b"0", b"zero")] + [
        pair(f"jpg{i}".encode(), f"txt{i}".encode()) for i in range(2)
    ]
    assert made.random_access("train").name(2)[1] == f"{stem}1"


def link(kind, name="0.txt", target="/etc/passwd"):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([("0.txt", b"a")], "the sample has no image"),
        ([("0.jpg", b"a")], "the sample has no text"),
        ([("0.jpg", b"a"), ("0.txt", b"\xff\xfe")], "the caption is not UTF-8"),
        ([("0.jpg", b"a"), ("0.JPG", b"a"), ("0.txt", b"")], "a member comes twice"),
        ([("../0.jpg", b"a"), ("../0.txt", b"")], "a member's name leaves the archive"),
        ([("a/../../0.jpg", b"a")], "a member's name leaves the archive"),
        ([("/etc/0.jpg", b"a"), ("/etc/0.txt", b"")], "a member's name leaves the archive"),
        ([("0.jpg", b"a"), link(tarfile.SYMTYPE)], "a member is a link"),
        ([("0.jpg", b"a"), link(tarfile.LNKTYPE, target="0.jpg")], "a member is a link"),
        ([("0.jpg", b"a"), link(tarfile.CHRTYPE)], "a member is no plain file"),
        ([("0.jpg", b"a"), link(tarfile.FIFOTYPE)], "a member is no plain file"),
    ],
)
def test_a_bad_sample_has_a_cause_and_keeps_its_place(tmp_path, members, cause):
    good = [("1.jpg", b"b"), ("1.txt", b"fine")]
    write_members(tmp_path / "a.tar", [*members, *good])
    assert parsed(source(tmp_path / "a.tar")) == [cause, pair(b"b", b"fine")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tar", "a.tar.index"]


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        (None, "the sample has no .json"),
        (b"{", "the .json cannot be read"),
        (b"\xff", "the .json cannot be read"),
        (b"[" * 100_000, "the .json cannot be read"),
        (b"9" * 5000, "the .json cannot be read"),
        (b"[1]", "the .json is no object"),
        (b"{}", "the .json has no field 'x'"),
        (b'{"x": null}', "the .json has no field 'x'"),
        (b'{"x": true}', "the field 'x' of the .json has another type"),
        (b'{"x": "3"}', "the field 'x' of the .json has another type"),
        (b'{"x": 3.5}', "the field 'x' of the .json has another type"),
        (b'{"x": 9223372036854775808}', "the field 'x' of the .json has another type"),
    ],
)
def test_a_bad_json_has_a_cause(tmp_path, details, cause):
    members = [("0.jpg", b""), ("0.txt", b"")] + ([("0.json", details)] if details else [])
    write_members(tmp_path / "a.tar", members)
    made = source(tmp_path / "a.tar", features={"x": INTEGER, "caption": STRING}, json=["x"])
    assert parsed(made) == [cause]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e300", "1e999", '"1"', "9" * 400])
def test_a_number_that_float32_cannot_hold(tmp_path, value):
    write_members(tmp_path / "a.tar", [("0.json", b'{"x": %s}' % value.encode())])
    made = source(tmp_path / "a.tar", features={"x": FLOAT}, json=["x"])
    assert parsed(made) == ["the field 'x' of the .json has another type"]


def test_an_altered_sample_keeps_its_place_and_its_number(tmp_path):
    path = tmp_path / "a.tar"
    write(path, [{"jpg": b"%d" % n * 90, "txt": str(n)} for n in range(4)])
    made = source(path)
    records = made.random_access("train")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"2" * 90, b"2" * 89 + b"3"))
    found = records.read(range(4))
    assert [isinstance(record, Unreadable) for record in found] == [False, False, True, False]
    assert found[2].cause == "the bytes of the record have changed since their checksum was made"
    assert records.name(1) == (str(path), "000000001") and records.name(2) == (str(path), "2")


def test_files_without_samples(tmp_path):
    write(tmp_path / "a.tar", [])
    made = source(tmp_path / "a.tar")
    assert made.num_input_examples("train") == 0
    assert list(made.get_dataset("train", shuffle=True)) == []


def test_in_a_seqio_task(tmp_path):
    write(tmp_path / "a.tar", [{"png": b"%d" % n, "txt": f"photo {n}"} for n in range(5)])
    made = source(tmp_path / "a.tar")
    seqio.TaskRegistry.add("tar_task", source=made, preprocessors=[], output_features={})
    try:
        task = seqio.get_mixture_or_task("tar_task")
        seen = list(task.get_dataset({}, "train", shuffle=False).as_numpy_iterator())
    finally:
        seqio.TaskRegistry.remove("tar_task")
    assert [(int(e["id"]), e["image/encoded"], e["caption"]) for e in seen] == [
        (n, b"%d" % n, b"photo %d" % n) for n in range(5)
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": {"width": INTEGER}}, "no field 'width'; name it in `json`"),
        ({"features": {"caption": INTEGER}}, "'caption' of photos must be a scalar"),
        ({"features": {"image/encoded": tf.io.FixedLenFeature([2], tf.string)}}, "a scalar"),
    ],
)
def test_what_no_sample_can_give_is_refused_at_once(options, sentence):
    with pytest.raises(UserError, match=sentence):
        source("a.tar", **options)


def test_json_in_other_encodings_is_read(tmp_path):
    for number, encoding in enumerate(("utf-8", "utf-16", "utf-8-sig")):
        content = json.dumps({"x": "ü"}, ensure_ascii=False).encode(encoding)
        write_members(tmp_path / f"{number}.tar", [("0.json", content)])
    made = source(*sorted(tmp_path.glob("*.tar")), features={"x": STRING}, json=["x"])
    assert parsed(made) == [{"x": "ü".encode()}] * 3
