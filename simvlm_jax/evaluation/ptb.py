"""Words of captions as COCO's evaluation cuts them, without its Java program.

COCO's scorers read words cut by Stanford's PTBTokenizer (CoreNLP 3.4.1, in lower case), without
punctuation marks. This follows its rules for what captions are made of: contractions, possessives,
hyphens, numbers, money, abbreviations, brackets, web addresses and signs. It may cut otherwise
where blanks are missing, in rare abbreviations, in source code, and in scripts other than Latin.
On the 5,916 different sentences of NLVR2 and on emoji names in six languages it never did.
"""

import re
import unicodedata

# COCO lists "-LRB-" and its like in capitals while its words are in lower case, so that brackets
# stay, as words; the numbers in papers were counted like that.
DROPPED = frozenset([*"'`.?!,:-;", "''", "``", "--"])
BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split(), strict=True))
REWRITTEN = {
    **BRACKETS,
    **dict.fromkeys("£\u20a4", "#"),
    **dict.fromkeys("€¤\u20a0", "$"),
    **{"¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
    **dict.fromkeys('"“”„«»\u201f\u2039\u203a', "''"),
    **dict.fromkeys("’‘\u201a\u201b\u0091\u0092", "'"),
    **dict.fromkeys("–—\u2015\u0096\u0097", "--"),
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">"},
}
# These keep their full stop.
ABBREVIATIONS = """
jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun mr mrs ms dr
prof gov gen col lt sgt capt sen rep rev hon adm st ave blvd rd pvt cpl maj brig supt det messrs mt
ft jr sr bros ed.d ph.d esq inc co cos corp pp ltd dept est vs etc cf eg ie viz al bhd ala ariz
calif colo conn fla ga ill ind kans kan ky la mass md mich minn miss mo mont neb nev okla ore pa
penn tenn tex va vt wash wis wyo
""".split()
LETTERS, WORD = r"[^\W\d_]+", r"[^\W_]+"
SLASHED = r"[a-z0-9]+(?:-[a-z]+){0,2}"  # ASCII, so that "Arzt/Ärztin" falls apart
ADDRESS = r"""[^\s"<>|()]+[^\s"<>|.!?(){},-]"""
# The first alternative that fits is taken. Lengths are bounded where a search could repeat.
PATTERN = re.compile(
    rf"""
    </?[a-z!?][^>\s]{{0,99}}> | &(?:amp|lt|gt);
    | (?:https?://|www\.){ADDRESS} | [\w.-]{{1,64}}@[\w-]{{1,64}}(?:\.[\w-]+)+ | @[a-z_]\w*
    | [<>]?[:;=][-o*']?[()DP\\{{@|\[\]](?![a-z])  # smileys
    | can(?=not\b) | gon(?=na\b) | got(?=ta\b) | wan(?=na\b) | lem(?=me\b) | gim(?=me\b)
    | '[ ]?t(?=(?:is|was)\b) | 'n' | 'n(?!\w) | '\d0s\b | 'em\b
    | '(?:s|m|d|ll|re|ve)\b | n't\b | {LETTERS}?(?=n't\b)
    | [dol]['’]{LETTERS}(?:-{WORD})*(?!'[a-z])  # o'clock
    | (?:[^\W\d_]\.){{2,}}(?:[^\W\d_]\b)? | [a-z]\.(?!\w)  # U.S.
    | (?:{"|".join(ABBREVIATIONS)})\.(?!\w) | no\.(?=\s?\d)
    | {SLASHED}(?:/{SLASHED}){{1,2}} | [-+]?\d*(?:[.,:/]\d+)+ | [-+]\d+
    | {LETTERS}[.!?]{LETTERS}\b | {WORD}(?:[-_]{WORD})*
    | \.{{2,}} | -{{2,}} | _+ | \*+ | << | >> | `` | '' | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Java holds what lies beyond the first 65,536 characters in halves, and the tokenizer drops both.
UNSEEN = re.compile("[\U00010000-\U0010ffff\u200b-\u200f\u2060\ufeff\ufe0e\ufe0f\u00ad]")
CURLED = re.compile(r"[’\u0092](?=(?:s|m|d|ll|re|ve|t|tis|twas)\b)", re.IGNORECASE)


def words(text: str) -> list[str]:
    """The lower-cased words of a caption.

    Equal letters in other Unicode forms are made one (NFC), which the Java program leaves.

    Examples: "A man isn't here; can't go." gives "a man is n't here ca n't go"; "the dog's
    T-shirt (red)" gives "the dog 's t-shirt -lrb- red -rrb-"; "$5.00, 10%" gives "$ 5.00 10 %".
    """
    text = CURLED.sub("'", UNSEEN.sub(" ", unicodedata.normalize("NFC", text)))
    pieces = (_rewritten(piece.lower()) for piece in PATTERN.findall(text))
    return [piece for piece in pieces if piece not in DROPPED and piece.strip(".…")]


def _rewritten(piece: str) -> str:
    if piece[0] in ":;=<>" and len(piece) < 5:  # a smiley's mouth is a bracket, too
        return "".join(REWRITTEN.get(sign, sign) if sign in "()" else sign for sign in piece)
    return REWRITTEN.get(piece, piece)
