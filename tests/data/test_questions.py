from collections import Counter

import pytest

from simvlm_jax.data.questions import (
    BOILERPLATE,
    Drawing,
    answer_classes,
    noisy,
    questions,
    thing,
)


def drawing(caption, group="person", concept=None, codepoints=None):
    return Drawing(codepoints or caption, caption, group, concept or thing(caption))


def asked(caption, group="person"):
    found = questions([drawing(caption, group), drawing("somebody else", group)], seed=0)
    return {q.kind: q.answer for q in found if q.codepoints == caption}


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("woman running: dark skin tone", "woman running"),
        ("kiss: woman, man", "kiss"),
        ("flag: Somalia", "flag: Somalia"),
        ("red heart", "red heart"),
    ],
)
def test_a_thing_is_named_without_its_variants(caption, name):
    assert thing(caption) == name


def test_what_a_name_says_is_asked():
    found = asked("woman with red hair: medium-dark skin tone")
    del found["yes_no"]
    assert found == {
        "kind": "person",
        "tone": "medium-dark",
        "who": "woman",
        "colour": "red",
        "name": "woman with red hair",
    }


@pytest.mark.parametrize(
    "caption",
    [
        "woman and man holding hands: light skin tone, dark skin tone",
        "people holding hands: light skin tone, light skin tone",
        "humans and redheads",
    ],
)
def test_what_has_two_answers_or_none_is_not_asked(caption):
    assert not {"tone", "who", "colour"} & set(asked(caption))


def test_half_of_the_yes_no_questions_are_right_in_each_group():
    members = [drawing(f"thing {n}", group) for group in ("face", "flag") for n in range(10)]
    members = [drawing(m.caption, m.group, codepoints=f"{m.group}{m.caption}") for m in members]
    found = [q for q in questions(members, seed=3) if q.kind == "yes_no"]
    for group in ("face", "flag"):
        answers = Counter(q.answer for q in found if q.codepoints.startswith(group))
        assert answers == {"yes": 5, "no": 5}
    for question in found:
        named = question.question.removeprefix("is this ").removesuffix("?")
        assert (question.codepoints.endswith(named)) == (question.answer == "yes")


def test_no_is_never_the_answer_to_a_variant_s_own_name():
    members = [
        drawing(f"cook: {tone} skin tone", concept="cook") for tone in ("light", "medium", "dark")
    ]
    members.append(drawing("pilot"))
    for seed in range(5):
        for question in questions(members, seed, ["yes_no"]):
            own = question.codepoints.partition(":")[0]
            assert (question.question == f"is this {own}?") == (question.answer == "yes")


def test_a_variant_is_never_taken_for_another_of_its_concept():
    members = [drawing(f"{who} cook", concept="cook") for who in ("man", "woman", "old", "young")]
    for seed in range(5):
        for question in questions([*members, drawing("pilot")], seed, ["yes_no"]):
            named = question.question.removeprefix("is this ").removesuffix("?")
            assert named in (question.codepoints, "pilot") or question.codepoints == "pilot"


def test_only_the_kinds_asked_for():
    found = questions([drawing("red heart", "symbol"), drawing("cat", "animal")], 0, ["name"])
    assert [(q.question, q.answer) for q in found] == [
        ("what is this?", "red heart"),
        ("what is this?", "cat"),
    ]


def test_classes_are_the_answers_the_commonest_first():
    found = questions([drawing("b", "x"), drawing("a", "x")], 0, ["kind", "name"])
    assert answer_classes(found) == ["x", "a", "b"]


def test_three_names_in_twenty_are_another_s_and_three_are_wrapped():
    captions = {str(number): f"name {number}" for number in range(100)}
    spoiled = noisy(captions, seed=1)
    assert list(spoiled) == list(captions)
    wrong = {k for k, v in spoiled.items() if v != captions[k] and v in captions.values()}
    assert len(wrong) == 15
    assert {spoiled[key] for key in wrong} == {captions[key] for key in wrong}
    wrapped = {k for k, v in spoiled.items() if v not in captions.values()}
    assert len(wrapped) == 15
    for key in wrapped:
        assert spoiled[key] in [f"{a}{captions[key]}{b}" for a, b in BOILERPLATE]
    assert noisy(captions, seed=1) == spoiled != noisy(captions, seed=2)
