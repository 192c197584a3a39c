"""Ten random faults, as a taste; `python tests/training/soak.py` does two hundred."""

import soak


def test_a_run_under_random_faults_ends_as_an_undisturbed_one(tmp_path):
    faults, same = soak.soak(tmp_path, faults=10, seed=4)
    assert len(faults) == 10 and same
    assert len({fault.kind for fault in faults}) >= 5
