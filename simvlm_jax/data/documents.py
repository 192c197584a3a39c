"""English prose that comes with every Python, cut into chunks of a bounded number of tokens.

The texts are the help topics of the standard library (`pydoc_data.topics`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from simvlm_jax.data.concepts import rank

WORD = re.compile(r"[\"'*(\[]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[\"'*)\].,:;?!]*")
RULE = re.compile(r"[-=*]{4}|::=")  # of a table, under a heading, of a grammar
FEWEST_WORDS = 8
LEAST_SHARE_OF_WORDS = 0.7
LONGEST_WORD = 4096  # characters


def topics() -> dict[str, str]:
    """Returns Python's help topics: name -> text."""
    from pydoc_data.topics import topics as texts

    return dict(texts)


def split(names: list[str], seed: int, share: float = 0.05) -> tuple[list[str], list[str]]:
    """Splits documents into training and validation, whole documents at a time.

    Args:
      names: names of the documents.
      seed: another seed gives another split.
      share: share of documents in validation, at least one.

    Returns:
      (names in training, names in validation), each sorted.
    """
    order = sorted(names, key=lambda name: rank(seed, name))
    count = max(1, round(len(names) * share))
    return sorted(order[count:]), sorted(order[:count])


def paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of a text that are prose, each on one line.

    Code, grammar rules, tables and headings are left out: a paragraph counts as prose if it has
    at least 8 words and 70 % of what stands between its blanks are plain words.
    """
    found = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in found if _is_prose(paragraph)]


def distinct_prose(texts: Mapping[str, str], order: list[str]) -> dict[str, list[str]]:
    """Gives each document its prose, every paragraph only to the first document that has it.

    The help topics repeat each other ("compound" contains all of "while"): with the validation
    documents first in the order, none of their paragraphs stays in training.

    Args:
      texts: name -> text.
      order: all names, the first owner first.

    Returns:
      Name -> paragraphs, in the order given.
    """
    seen: set[str] = set()
    result: dict[str, list[str]] = {}
    for name in order:
        result[name] = []
        for paragraph in paragraphs(texts[name]):
            if paragraph not in seen:
                seen.add(paragraph)
                result[name].append(paragraph)
    return result


def chunks(text: str, limit: int, count_tokens: Callable[[str], int]) -> Iterator[str]:
    """Cuts a text between words into chunks, each as long as fits.

    Relies on a tokenizer whose tokens never cross a blank, so that lengths of words add up.

    Args:
      text: words separated by white space.
      limit: most tokens in a chunk, end of sequence not counted.
      count_tokens: number of tokens of a word.

    Yields:
      Chunks whose words, in order, are those of the text. A word of more than `limit` tokens is
      cut into pieces that fit.
    """
    words: list[str] = []
    length = 0
    for word in fitting(text.split(), limit, count_tokens):
        added = count_tokens(word)
        if words and length + added > limit:
            yield " ".join(words)
            words, length = [], 0
        words.append(word)
        length += added
    if words:
        yield " ".join(words)


def fitting(words: Iterable[str], limit: int, count_tokens: Callable[[str], int]) -> Iterator[str]:
    """Cuts words in halves until each fits.

    Args:
      words: without blanks.
      limit: most tokens of a word.
      count_tokens: number of tokens of a word.

    Yields:
      The words in order; one of more than `limit` tokens as several. What is longer than
      LONGEST_WORD characters is cut there first, so that the time is linear.
    """
    for word in words:
        if len(word) > LONGEST_WORD:
            starts = range(0, len(word), LONGEST_WORD)
            yield from fitting((word[i : i + LONGEST_WORD] for i in starts), limit, count_tokens)
        elif count_tokens(word) <= limit or len(word) == 1:
            yield word
        else:
            middle = len(word) // 2
            yield from fitting([word[:middle], word[middle:]], limit, count_tokens)


def _is_prose(paragraph: str) -> bool:
    items = paragraph.split()
    plain = sum(bool(WORD.fullmatch(item)) for item in items)
    enough = plain >= FEWEST_WORDS and plain >= LEAST_SHARE_OF_WORDS * len(items)
    return enough and not RULE.search(paragraph)
