import json
import random

import pytest

from benchmark_makers.vqa_v2 import Question, write_karpathy, write_part
from simvlm_jax.cli.main import main
from simvlm_jax.data.benchmarks.vqa import (
    most_frequent_answers,
    own_question_rows,
    partial_classes,
    question_rows,
)
from simvlm_jax.data.sources.official import FAULT
from simvlm_jax.errors import UserError

QUESTIONS = [Question(10 + i, i, f"what {i}?", [str(i)] * 10) for i in range(20)]


def files(folder, part="train2014"):
    names = f"v2_OpenEnded_mscoco_{part}_questions.json", f"v2_mscoco_{part}_annotations.json"
    return [str(folder / name) for name in names]


def test_annotations_are_found_in_any_order(tmp_path):
    write_part(tmp_path, "train2014", QUESTIONS)
    questions, annotations = files(tmp_path)
    before = list(question_rows([questions, annotations], ["train2014"]))
    assert [row["answer"] for row in before] == [str(i) for i in range(20)]
    assert before[3]["image"] == "train2014/COCO_train2014_000000000003.jpg"
    content = json.loads(open(annotations).read())
    for seed in range(5):
        random.Random(seed).shuffle(content["annotations"])
        with open(annotations, "w") as file:
            json.dump(content, file)
        assert list(question_rows([questions, annotations], ["train2014"])) == before


def test_what_is_missing_keeps_its_place(tmp_path):
    write_part(tmp_path, "train2014", QUESTIONS)
    questions, annotations = files(tmp_path)
    content = json.loads(open(annotations).read())
    del content["annotations"][4], content["annotations"][7]["answers"]
    with open(annotations, "w") as file:
        json.dump(content, file)
    content = json.loads(open(questions).read())
    del content["questions"][9]["image_id"]
    with open(questions, "w") as file:
        json.dump(content, file)
    rows = list(question_rows([questions, annotations], ["train2014"]))
    assert [i for i, row in enumerate(rows) if FAULT in row] == [4, 8, 9] and len(rows) == 20
    assert rows[4][FAULT] == "the question has no annotation"


def test_partial_training_sees_two_thirds_of_the_classes():
    classes = {f"answer {i}": i for i in range(300)}
    seen = partial_classes(classes)
    assert len(seen) == 200 and seen < set(classes)
    assert seen == partial_classes(dict(reversed(classes.items())))


def test_domains_go_by_the_most_frequent_answer(tmp_path):
    questions = [
        Question(1, 1, "a?", ["The Cat"] * 5 + ["dog"] * 5),
        Question(2, 1, "b?", ["dogs"] * 5 + ["cat"] * 5),
        Question(3, 2, "c?", ["cat"] * 10),
    ]
    write_part(tmp_path, "train2014", questions)
    write_karpathy(tmp_path, {1: ("train2014", "test"), 2: ("train2014", "restval")})
    (tmp_path / "answers.txt").write_text("cat\n")
    paths = [*files(tmp_path), str(tmp_path / "answers.txt"), str(tmp_path / "dataset_coco.json")]

    def ids(**options):
        return [row["question_id"] for row in question_rows(paths, ["train2014"], **options)]

    assert ids(karpathy="test", domain="in") == [1]
    assert ids(karpathy="test", domain="out") == [2]
    assert ids(karpathy="train", classes=True) == [3]
    with pytest.raises(UserError, match="no image of the split 'val'"):
        ids(karpathy="val", classes=True)


def test_prepare_answers_counts_the_most_frequent_answer_of_each_question(tmp_path, capsys):
    folder = tmp_path / "vqa_v2"
    answers = (
        ["two"] * 9 + ["2"] * 2 + ["The dog."] * 9 + ["cat"] * 8 + ["a an"] * 20 + ["red"] * 12
    )
    questions = [Question(i, i, "q?", [a, *["no"] * 9]) for i, a in enumerate(answers)]
    write_part(folder, "train2014", questions[::2])
    write_part(folder, "val2014", questions[1::2])
    assert main(["prepare", "answers", f"--data_dir={tmp_path}"]) == 0
    # 2 has eleven questions; ties would stand in alphabetical order; "a an" is nothing at all.
    assert (folder / "answers.txt").read_text() == "red\n2\ndog\n"
    assert "3 answers, each of 9 questions or more" in capsys.readouterr().out
    output = tmp_path / "all.txt"
    main(["prepare", "answers", f"--data_dir={tmp_path}", "--least=8", f"--output={output}"])
    assert output.read_text() == "red\n2\ndog\ncat\n"
    assert main(["prepare", "answers", f"--data_dir={tmp_path}", "--least=50"]) == 2
    assert main(["prepare", "answers", f"--data_dir={tmp_path / 'none'}"]) == 2
    (folder / "v2_mscoco_val2014_annotations.json").write_text('{"annotations": [{}]}')
    assert main(["prepare", "answers", f"--data_dir={tmp_path}"]) == 2
    assert "has no multiple_choice_answer" in capsys.readouterr().err
    with pytest.raises(UserError, match="Annotation 0"):
        list(most_frequent_answers([str(folder / "v2_mscoco_val2014_annotations.json")]))


def test_own_questions_have_classes_too(tmp_path):
    lines = [
        {"image": "1.jpg", "question": "what?", "answer": "A dog"},
        {"image": "2.jpg", "question": "what?", "answers": ["cat", "Dog", "dog"]},
        {"image": "3.jpg", "question": "what?"},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["prepare", "answers", f"--input={path}"]) == 0
    assert (tmp_path / "answers.txt").read_text() == "cat\ndog\n"
    rows = list(own_question_rows([str(path), str(tmp_path / "answers.txt")], "own"))
    assert rows[0]["labels"][:2] == [1, -1] and rows[0]["label_scores"][0] == 1
    assert rows[1]["labels"][:3] == [1, 0, -1] and rows[1]["image"] == "own/2.jpg"
    assert rows[2] == {FAULT: "the line has not image, question and answer"}
