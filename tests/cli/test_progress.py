from simvlm_jax.cli import progress


def test_progress_tells_rate_and_time_left(capsys, monkeypatch):
    seconds = iter([0.0, 2.0, 2.5, 8.0, 9.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    tell = progress.Progress()
    for done in (20, 25, 80):  # the second comes too soon after the first
        tell("drawing", done, 100)
    tell("writing", 0, 1)
    assert capsys.readouterr().err.splitlines() == [
        "drawing 20/100, 10 a second, 8 s left",
        "drawing 80/100, 10 a second, 2 s left",
        "writing",
    ]


def test_what_was_done_before_counts_neither_for_the_rate_nor_for_the_time(capsys, monkeypatch):
    seconds = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    tell = progress.Progress()
    tell("reading", 1, 1)
    tell("writing", 600, 1000, before=600)
    tell("writing", 1000, 1000, before=600)
    assert capsys.readouterr().err.splitlines() == [
        "reading 1/1, 1 a second, 0 s left",
        "writing 600/1000, done before",
        "writing 1000/1000, 67 a second, 0 s left",
    ]
