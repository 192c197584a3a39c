import pytest

from simvlm_jax.data import ledger
from simvlm_jax.data.ledger import FailureLedger
from simvlm_jax.errors import UserError


def filled(failures, **options):
    made = FailureLedger(**options)
    for number in range(failures):
        made.record("pairs", number, "truncated.")
    return made


def test_failures_are_counted_by_source_and_cause_and_named():
    made = filled(2)
    made.record("others", 9, "too large.")
    assert made.counts == {("pairs", "truncated."): 2, ("others", "too large."): 1}
    assert made.entries[-1] == ("others", 9, "too large.")


def test_a_few_failures_never_stop_anything():
    filled(3, always_allowed=3).check(examples_read=3)


def test_too_many_failures_stop_with_a_sentence():
    made = filled(4, always_allowed=3, largest_share=0.1)
    made.check(examples_read=40)
    with pytest.raises(UserError, match=r"4 of about 39 .* example 3 of pairs \(truncated\)"):
        made.check(examples_read=39)


def test_names_are_kept_up_to_a_limit_and_counts_beyond_it(monkeypatch):
    monkeypatch.setattr(ledger, "NAMED", 5)
    made = filled(8)
    assert len(made.entries) == 5 and sum(made.counts.values()) == 8


def test_the_first_failures_are_told_each_once(capsys):
    made = filled(12)
    made.record("pairs", 0, "truncated.")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Example 0 of pairs counts nothing: truncated."
    assert len(lines) == 10 and lines[-1].endswith("; of further ones nothing is told.")
    assert sum(made.counts.values()) == 13 and len(made.entries) == 12
