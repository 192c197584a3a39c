import json

import pytest

from simvlm_jax.data import ledger
from simvlm_jax.data.ledger import Failure, FailureLedger
from simvlm_jax.errors import UserError


def failure(number, cause="truncated", source="pairs"):
    return Failure(source, "a.tar", str(number), cause)


def test_failures_are_counted_by_source_and_cause_and_named():
    made = FailureLedger()
    made.note(0, 10, [failure(1), failure(2)])
    made.note(1, 10, [failure(9, "too large", "others")])
    assert made.counts == {("pairs", "truncated"): 2, ("others", "too large"): 1}
    assert made.named == {failure(1), failure(2), failure(9, "too large", "others")}


def test_numbers_within_a_cause_do_not_make_it_another():
    made = FailureLedger()
    made.note(0, 10, [failure(1, "too large: 70 x 9"), failure(2, "too large: 8 x 100")])
    assert made.counts == {("pairs", "too large: N x N"): 2}


def test_a_few_failures_never_stop_anything():
    FailureLedger(always_allowed=3).note(0, 3, [failure(n) for n in range(3)])


def test_too_many_failures_stop_with_a_sentence():
    made = FailureLedger(always_allowed=3, largest_share=0.1)
    made.note(0, 40, [failure(n) for n in range(4)])
    with pytest.raises(UserError, match="5 of the newest 49 .* record 7 of a.tar in pairs"):
        made.note(1, 9, [failure(7)])


def test_only_the_newest_examples_count():
    options = {"largest_share": 0.1, "always_allowed": 0, "window": 20}
    made = FailureLedger(**options)
    made.note(0, 10, [failure(0)])
    made.note(1, 10, [failure(1)])  # 2 of 20
    made.note(2, 10, [failure(2)])  # the first step has left the window: 2 of 20
    for step in range(3, 9):
        made.note(step, 10, [])
    made.note(9, 10, [failure(3)])
    with pytest.raises(UserError, match="3 of the newest 20"):
        made.note(10, 10, [failure(4), failure(5)])


def test_a_long_good_past_does_not_excuse_a_bad_present():
    made = FailureLedger(largest_share=0.01, always_allowed=0, window=100)
    made.note(0, 1_000_000, [])
    made.note(1, 100, [])
    with pytest.raises(UserError, match="2 of the newest 100 examples"):
        made.note(2, 100, [failure(0), failure(1)])


def test_each_record_is_named_once_in_the_file_across_starts(tmp_path):
    for start in range(2):
        made = FailureLedger()
        made.open(tmp_path / "run")
        made.note(start, 10, [failure(1), failure(1)])
        made.note(start + 1, 10, [failure(2, "ä")])
    lines = (tmp_path / "run" / "ledger.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 0, "source": "pairs", "shard": "a.tar", "key": "1", "cause": "truncated"},
        {"step": 1, "source": "pairs", "shard": "a.tar", "key": "2", "cause": "ä"},
    ]


def test_a_line_that_a_kill_cut_short_is_written_again(tmp_path):
    path = tmp_path / "ledger.jsonl"
    made = FailureLedger()
    made.open(tmp_path)
    made.note(0, 10, [failure(1), failure(2)])
    whole = path.read_text()
    path.write_text(whole[:-20])
    again = FailureLedger()
    again.open(tmp_path)
    again.note(0, 10, [failure(1), failure(2)])
    assert path.read_text() == whole


def test_names_of_any_characters_are_read_back(tmp_path):
    odd = [failure(0, "a\u2028b\u0085c"), failure(1, "a\nb"), failure(2, "\udc80.jpg")]
    for _ in range(2):
        made = FailureLedger()
        made.open(tmp_path)
        made.note(0, 1000, odd)
    assert len((tmp_path / "ledger.jsonl").read_text().split("\n")) == len(odd) + 1


def test_every_host_has_a_file_of_its_own(tmp_path):
    for host in range(2):
        made = FailureLedger()
        made.open(tmp_path, host, 2)
        made.note(0, 10, [failure(host)])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["ledger-00000-of-00002.jsonl", "ledger-00001-of-00002.jsonl"]


def test_names_are_kept_up_to_a_limit_and_counts_beyond_it(monkeypatch):
    monkeypatch.setattr(ledger, "NAMED", 5)
    made = FailureLedger()
    made.note(0, 1000, [failure(n) for n in range(8)])
    assert len(made.named) == 5 and made.counts.total() == 8


def test_the_first_failures_are_told_each_once(capsys):
    made = FailureLedger()
    made.note(0, 10_000, [failure(n) for n in (0, *range(12))])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Record 0 of a.tar (pairs) counts nothing: truncated."
    assert len(lines) == 10 and lines[-1].endswith("; of further ones nothing is told.")


def test_a_ledger_that_cannot_be_written_is_a_sentence(tmp_path):
    made = FailureLedger()
    made.open(tmp_path)
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"ledger.jsonl cannot be written: No space left on dev"):
        made.note(0, 1, [failure(1)])
