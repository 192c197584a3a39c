"""Questions about drawings, made from their names: a small stand-in for VQA.

Nobody wrote these questions: each follows from a drawing's name and group, so the answers are as
right as the names are. Which ones a drawing gets depends on hashes of (seed, code points) only.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from simvlm_jax.data.concepts import rank

TONE = re.compile(r"\b(medium-light|medium-dark|medium|light|dark) skin tone\b")
COLOUR = re.compile(r"\b(red|orange|yellow|green|blue|purple|brown|black|white|pink|grey)\b")
WHO = re.compile(r"\b(man|woman|person)\b")
KINDS = ("kind", "tone", "who", "colour", "name", "yes_no")


@dataclass(frozen=True)
class Drawing:
    """What is known of a drawing.

    Attributes:
      codepoints: identify it.
      caption: its English name, "woman running: dark skin tone".
      group: its coarse class, "person".
      concept: what its variants share.
    """

    codepoints: str
    caption: str
    group: str
    concept: str


@dataclass(frozen=True)
class Question:
    """One question about one drawing.

    Attributes:
      codepoints: the drawing's.
      kind: one of `KINDS`.
      question: the text.
      answer: the only right one.
    """

    codepoints: str
    kind: str
    question: str
    answer: str


def thing(caption: str) -> str:
    """Names what is drawn, without skin tones and lists of people.

    Example: "woman running: dark skin tone" gives "woman running", "kiss: woman, man" gives "kiss";
    "flag: Somalia" stays, for its detail is what tells it from others.
    """
    return caption if caption.startswith("flag: ") else caption.partition(": ")[0]


def questions(
    drawings: Iterable[Drawing], seed: int, kinds: Collection[str] = KINDS
) -> list[Question]:
    """Asks all that follows from the names of some drawings.

    Args:
      drawings: of one split; "is this ...?" names others of them.
      seed: another seed gives other names to the yes/no questions.
      kinds: which of `KINDS` to ask.

    Returns:
      Questions, in the order of the drawings.
    """
    ordered = list(drawings)
    others = _others(ordered, seed)
    return [
        Question(drawing.codepoints, *asked)
        for drawing in ordered
        for asked in _asked(drawing, others[drawing.codepoints])
        if asked[0] in kinds
    ]


def _asked(drawing: Drawing, named: str) -> list[tuple[str, str, str]]:
    """(kind, question, answer) of each question; `named` is what the yes/no question names."""
    found = [("kind", "what kind of thing is this?", drawing.group)]
    own = thing(drawing.caption)
    for kind, text, pattern, place in (
        ("tone", "what skin tone is it?", TONE, drawing.caption),
        ("who", "is it a man, a woman or a person?", WHO, own),
        ("colour", "what colour is it?", COLOUR, own),
    ):
        answers = set(pattern.findall(place))
        if len(answers) == 1 and "skin tone, " not in place:  # two people have no one tone
            found.append((kind, text, answers.pop()))
    found.append(("name", "what is this?", own))
    found.append(("yes_no", f"is this {named}?", "yes" if named == own else "no"))
    return found


def _others(drawings: list[Drawing], seed: int) -> dict[str, str]:
    """The thing that each drawing's yes/no question names: its own, or another of its group.

    Within a group, as many are asked for their own thing as for another's (or one more).
    """
    groups: dict[str, list[Drawing]] = {}
    for drawing in sorted(drawings, key=lambda d: rank(seed, d.codepoints)):
        groups.setdefault(drawing.group, []).append(drawing)
    found = {}
    for members in groups.values():
        half = (len(members) + 1) // 2
        found |= {member.codepoints: thing(member.caption) for member in members[:half]}
        rest = members[half:]
        for place, member in enumerate(rest):
            others = rest[place + 1 :] + rest[:place] + members[:half]
            named = [thing(o.caption) for o in others if o.concept != member.concept]
            found[member.codepoints] = (named or [thing(member.caption)])[0]
    return found


def answer_classes(asked: Iterable[Question]) -> list[str]:
    """Every answer once, the commonest first: the classes of a classifier, VQA's answer list."""
    counts: dict[str, int] = {}
    for question in asked:
        counts[question.answer] = counts.get(question.answer, 0) + 1
    return sorted(counts, key=lambda answer: (-counts[answer], answer))


def noisy(captions: Mapping[str, str], seed: int) -> dict[str, str]:
    """Spoils names the way alt-texts of the web are spoiled, for a large noisy set.

    By rank of a hash, three drawings in twenty get another drawing's name, and three in twenty get
    their own one inside the boilerplate of a download page. The others keep theirs.

    Args:
      captions: name by code points.
      seed: another seed spoils others.

    Returns:
      Name by code points, in the same order.
    """
    ordered = sorted(captions, key=lambda key: rank(seed, "noise/" + key))
    share = len(ordered) * 3 // 20
    wrong, wrapped = ordered[:share], ordered[share : 2 * share]
    result = dict(captions)
    for place, key in enumerate(wrong):
        result[key] = captions[wrong[(place + 1) % share]]
    for place, key in enumerate(wrapped):
        before, after = BOILERPLATE[place % len(BOILERPLATE)]
        result[key] = f"{before}{captions[key]}{after}"
    return result


BOILERPLATE = (
    ("free ", " icon png"),
    ("", " vector clip art"),
    ("download ", ""),
    ("", " stock image"),
    ("image of ", " on white"),
    ("icon ", " 72 px"),
)
