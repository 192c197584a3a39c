import json
import re

import pytest

from made_ablation import COMPUTE, ROWS, SCORES, make_runs
from simvlm_jax.ablation import plan, results, table
from simvlm_jax.errors import UserError


def gathered(folder, scores=SCORES):
    runs = make_runs(folder, scores)
    return results.gather(ROWS, runs, COMPUTE, plan.Downstream(), {"data_sha256": "abc"})


def test_results_hold_everything_and_are_json(tmp_path):
    found = gathered(tmp_path)
    assert json.loads(json.dumps(found)) == found
    base, none, two = found["rows"]
    assert base["mean"] == pytest.approx(0.66) and base["verdict"] is base["difference"] is None
    assert none["difference"]["low"] == pytest.approx(-0.05 - 4.302653 * 0.01 / 3**0.5)
    assert (none["verdict"], two["verdict"]) == ("holds", "not resolved")
    assert none["paper_difference"] == -17.73 and none["seeds"][1]["score"] == 0.62
    assert base["seeds"][0]["pretraining_seconds"] == 120.5
    assert base["seeds"][0]["stage_seconds"]["evaluation"] == 130.0
    assert base["flops"] == two["flops"] == 2e11 and none["flops"] == 0
    assert found["controls"] == {"shuffled": pytest.approx(0.3), "most_frequent": 0.25}
    assert found["orders"] == {"holds": 2, "does not hold": 0, "not resolved": 1}
    assert results.missing(found) == [] and found["settings"] == {"data_sha256": "abc"}


def test_the_markdown_table_says_it_all(tmp_path):
    lines = table.markdown(gathered(tmp_path)).split("\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert {len(row) for row in rows} == {len(table.COLUMNS)}
    assert rows[3] == [
        "no pretraining", "questions from fresh parameters", "0", "61.0 (60.0, 62.0, 61.0)",
        "-5.0 (-7.5 to -2.5)", "49.70", "-17.73", "holds",
    ]  # fmt: skip
    assert rows[2][4:] == ["–", "67.43", "–", "–"]
    text = "\n".join(lines[5:])
    assert "1 holds, 0 does not hold, 1 not resolved" in text and "0.20 to 0.20 TFLOP" in text
    assert "another drawing's: 30.0 %" in text and "Missing" not in text


def test_a_missing_run_is_named_and_its_seed_left_out(tmp_path):
    found = gathered(tmp_path, SCORES | {"two_blocks": (0.66, None, 0.68)})
    assert results.missing(found) == ["two_blocks, seed 1"]
    text = table.markdown(found)
    assert "67.0 (66.0, missing, 68.0)" in text and "2 pairs" in text
    assert "Missing: two_blocks, seed 1." in text


def test_a_row_of_which_nothing_is_there_is_missing(tmp_path):
    found = gathered(tmp_path, SCORES | {"two_blocks": (None, None, None)})
    cells = table.cells(found["rows"][2])
    assert cells[3] == "missing (missing, missing, missing)" and cells[4] == "missing"
    assert cells[7] == "not resolved"
    assert table.html(found) and table.markdown(found)


@pytest.mark.parametrize("content", ["{}", '{"questions": 3}', '{"questions": {"accuracy": "x"}}'])
def test_metrics_without_the_score_are_a_sentence(tmp_path, content):
    runs = make_runs(tmp_path)
    (runs[0].stages[-1].folder / "metrics.json").write_text(content)
    with pytest.raises(UserError, match="has no number questions.accuracy"):
        results.gather(ROWS, runs, COMPUTE, plan.Downstream(), {})


def test_the_page_shows_each_difference_and_escapes(tmp_path):
    found = gathered(tmp_path)
    found["rows"][1]["title"] = "<script>"
    text = table.html(found)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert len(re.findall('class="interval', text)) == 2
    assert '<g class="interval right">' in text and "-7.5 to -2.5" in text
