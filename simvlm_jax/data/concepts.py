"""Base concepts of emoji, and splits that hold out whole concepts or single variants.

Five skin tones, three genders and two directions draw one concept. A test of new concepts must
hold out all of its variants; a test of composition holds out some variants of concepts that
stay in training. Hair stays part of the concept: it names what is drawn ("bald woman"), where a
tone or a gender only modifies it.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

SKIN_TONES = range(0x1F3FB, 0x1F3FF + 1)
JOINER = 0x200D
EMOJI_STYLE = 0xFE0F
FEMALE, MALE = 0x2640, 0x2642
FACING_RIGHT = 0x27A1
PERSON, CHILD, OLDER_PERSON, WITH_CROWN = 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x1FAC5
MAN, WOMAN = 0x1F468, 0x1F469
HEART, KISS, HANDSHAKE, RABBIT, FIGHT = 0x2764, 0x1F48B, 0x1F91D, 0x1F430, 0x1FAEF
SANTA, PREGNANT, DANCING, RESTROOM = 0x1F385, 0x1FAC4, 0x1F483, 0x1F6B9

WITHOUT_GENDER = {
    **{MAN: PERSON, WOMAN: PERSON},
    **{0x1F466: CHILD, 0x1F467: CHILD},  # boy, girl
    **{0x1F474: OLDER_PERSON, 0x1F475: OLDER_PERSON},
    **{0x1F934: WITH_CROWN, 0x1F478: WITH_CROWN},  # prince, princess
    **{0x1F930: PREGNANT, 0x1FAC3: PREGNANT},
    **{0x1F936: SANTA, 0x1F57A: DANCING, 0x1F6BA: RESTROOM, FEMALE: MALE},
}
# Single code points whose variants are spelled as sequences.
SAME_AS_SEQUENCE = {
    (0x1F46A,): (PERSON, PERSON, CHILD),
    **{(pair,): (PERSON, HANDSHAKE, PERSON) for pair in (0x1F46B, 0x1F46C, 0x1F46D)},
    (0x1F48F,): (PERSON, HEART, KISS, PERSON),
    (0x1F491,): (PERSON, HEART, PERSON),
    (0x1F46F,): (PERSON, RABBIT, PERSON),
    (0x1F93C,): (PERSON, FIGHT, PERSON),
    (HANDSHAKE,): (0x1FAF1, 0x1FAF2),
    (PERSON, 0x1F384): (SANTA,),  # Mx Claus
}
TRAIN, VARIANTS, CONCEPTS = "train", "variants", "concepts"


@dataclass(frozen=True)
class Named:
    """What a split needs to know of one example.

    Attributes:
      codepoints: upper-case hexadecimal code points joined by "-".
      caption: the text that a model is scored on.
    """

    codepoints: str
    caption: str


def code_points(text: str) -> tuple[int, ...]:
    """Reads "1F468-1F3FD-200D-2695" as numbers; the style selector U+FE0F is dropped."""
    return tuple(point for part in text.split("-") if (point := int(part, 16)) != EMOJI_STYLE)


def base_concept(codepoints: str) -> str:
    """Names the concept that an emoji draws, without skin tone, gender and direction.

    Example: "1F469-1F3FD-200D-2695-FE0F" (woman health worker: medium skin tone) and
    "1F9D1-200D-2695" (health worker) both give "1F9D1-2695".

    Args:
      codepoints: hexadecimal code points joined by "-".

    Returns:
      The concept's own code points, without joiners, joined by "-".
    """
    points = code_points(codepoints)
    if JOINER in points:
        points = tuple(p for p in points if p not in (JOINER, FEMALE, MALE, FACING_RIGHT))
    if len(points) > 1:  # a tone alone is a drawing of its own
        points = tuple(p for p in points if p not in SKIN_TONES)
    points = tuple(WITHOUT_GENDER.get(point, point) for point in points)
    points = SAME_AS_SEQUENCE.get(points, points)
    return "-".join(f"{point:04X}" for point in points)


def parts(codepoints: str) -> frozenset[int]:
    """Returns the tones, genders and direction that tell an emoji from its base concept."""
    points = code_points(codepoints)
    marks = {*SKIN_TONES, *WITHOUT_GENDER, FEMALE, MALE, FACING_RIGHT}
    return frozenset(point for point in points if point in marks)


def split(
    examples: Iterable[Named],
    seed: int,
    concept_fraction: Fraction = Fraction(8, 100),
    variant_fraction: Fraction = Fraction(1, 8),
    fewest_variants: int = 4,
) -> dict[str, str]:
    """Assigns every example to "train", "variants" or "concepts".

    All choices are ranks of hashes of (seed, name), so they depend on nothing else. An example
    whose caption another concept (for "concepts") or another example (for "variants") also has
    is never held out: an evaluation caption does not occur in training.

    Args:
      examples: all examples, with distinct code points.
      seed: another seed gives another split.
      concept_fraction: share of base concepts held out whole, rounded to a number of concepts.
      variant_fraction: share of variants held out of each concept that has enough of them.
      fewest_variants: concepts with fewer variants than this keep them all.

    Returns:
      Code points -> name of the split.
    """
    members: dict[str, list[Named]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: example.codepoints):
        members[base_concept(example.codepoints)].append(example)
    owners = _caption_owners(members)
    unshared = [c for c, group in members.items() if all(len(owners[_key(e)]) == 1 for e in group)]
    count = math.floor(len(members) * concept_fraction + Fraction(1, 2))
    held_out = set(sorted(unshared, key=lambda concept: rank(seed, concept))[:count])
    result = {e.codepoints: TRAIN for group in members.values() for e in group}
    result |= {e.codepoints: CONCEPTS for concept in held_out for e in members[concept]}

    groups = [group for concept, group in members.items() if concept not in held_out]
    result |= dict.fromkeys(_variants(groups, seed, variant_fraction, fewest_variants), VARIANTS)
    return result


def _variants(
    groups: list[list[Named]], seed: int, fraction: Fraction, fewest_variants: int
) -> list[str]:
    """Chooses variants to hold out; each of their parts stays in training somewhere."""
    captions = Counter(_key(example) for group in groups for example in group)
    left = Counter(part for group in groups for e in group for part in parts(e.codepoints))
    chosen = []
    for group in groups:
        wanted = math.floor(len(group) * fraction + Fraction(1, 2))
        if len(group) < fewest_variants:
            continue
        for example in sorted(group, key=lambda example: rank(seed, example.codepoints)):
            own = parts(example.codepoints)
            unique = captions[_key(example)] == 1
            if wanted and unique and all(left[part] > 1 for part in own):
                left.subtract(own)
                chosen.append(example.codepoints)
                wanted -= 1
    return chosen


def rank(seed: int, name: str) -> str:
    """Returns a pseudo-random sorting key of a name, the same everywhere."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _key(example: Named) -> str:
    return example.caption.casefold()


def _caption_owners(members: Mapping[str, list[Named]]) -> dict[str, set[str]]:
    owners: dict[str, set[str]] = defaultdict(set)
    for concept, group in members.items():
        for example in group:
            owners[_key(example)].add(concept)
    return owners
