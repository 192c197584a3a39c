"""Short codes of emoji turned into plain words, in English and in German.

The `emoji` package writes `:woman_medium-dark_skin_tone_red_hair:`; a caption should read
"woman with red hair: medium-dark skin tone". What varies (who, which skin tone) comes last,
after a colon, in the manner of Unicode's own names.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """What has to be known about one language's short codes.

    Attributes:
      tone: pattern of one skin tone, together with what joins it to the words before it.
      couple: pattern of names that go on to list people, such as families; group 1 is the head.
      member: pattern of one person in that list.
      rewrites: (pattern, replacement) pairs for wordings that read badly.
      flag: the word before a country's name.
    """

    tone: re.Pattern[str]
    couple: re.Pattern[str]
    member: re.Pattern[str]
    rewrites: tuple[tuple[re.Pattern[str], str], ...]
    flag: str


def _rewrites(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


ENGLISH = Language(
    tone=re.compile(r" ?\b((?:medium-light|medium-dark|medium|light|dark) skin tone)"),
    couple=re.compile(r"(family|couple with heart|kiss)(?: (?:man|woman|person|adult|boy|girl)\b)"),
    member=re.compile(r"\b(?:man|woman|person|adult|boy|girl|child)\b"),
    rewrites=_rewrites(
        (r"^(man|woman|person) (\w+) hair$", r"\1 with \2 hair"),
        (r"^(man|woman|person) bald$", r"bald \1"),
        (r"^(man|woman|person) beard$", r"\1 with a beard"),
        (r" & ", " and "),
    ),
    flag="flag",
)
GERMAN = Language(
    tone=re.compile(
        r"(?:,| und)* ?\b((?:mittelhelle|mitteldunkle|mittlere|helle|dunkle) hautfarbe)"
    ),
    couple=re.compile(
        r"(familie|liebespaar|sich küssendes paar)(?: (?:mann|frau|person|\d|junge|mädchen)\b)"
    ),
    member=re.compile(
        r"(?:\d )?\b(?:mann|frau|person|junge|mädchen|kinder|kind|erwachsene)\b(?:\(r\))?"
    ),
    rewrites=_rewrites(
        (r"^(mann|frau|person),? (?:blond|blondes haar)$", r"\1 mit blondem haar"),
        (r"^(mann|frau|person) (\w+)es haar$", r"\1 mit \2em haar"),
        (r"^(mann|frau|person) (glatze|bart)$", r"\1 mit \2"),
    ),
    flag="flagge",
)


def caption(short_code: str, language: Language, is_flag: bool = False) -> str:
    """Turns a short code into plain words.

    Example: `:kiss_woman_man_light_skin_tone_dark_skin_tone:` in English becomes
    "kiss: woman, man, light skin tone, dark skin tone".

    Args:
      short_code: a name from `emoji.EMOJI_DATA`, with or without its colons.
      language: ENGLISH or GERMAN.
      is_flag: the emoji is the flag of a country or region, whose bare name would not say so.

    Returns:
      The caption; letter case is the short code's own (the German ones have no capitals).
    """
    words = short_code.strip(":").replace("_", " ").replace("’", "'")
    if is_flag:
        place = words.removeprefix(f"{language.flag} ").replace(" & ", " and ")
        return f"{language.flag}: {place}"
    details = language.tone.findall(words)
    thing = language.tone.sub("", words)
    if not thing:  # one of the five swatches that show nothing but a skin tone
        return words
    if match := language.couple.match(thing):
        details = language.member.findall(thing[match.end(1) :]) + details
        thing = match[1]
    for pattern, replacement in language.rewrites:
        thing = pattern.sub(replacement, thing)
    return f"{thing}: {', '.join(details)}" if details else thing
