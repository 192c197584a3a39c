import shutil
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.evaluation.ptb import words

HAS_JAVA = shutil.which("java") is not None
# What the Java program (CoreNLP 3.4.1 by pycocoevalcap 1.2) said, written down.
SAID_BY_JAVA = {
    "A man isn't here, can't go. Don't!": "a man is n't here ca n't go do n't",
    "grey colour (red) [x] {y}": "grey colour -lrb- red -rrb- -lsb- x -rsb- -lcb- y -rcb-",
    "a dog's bowl; dogs' bowls": "a dog 's bowl dogs bowls",
    "it costs $5.00 or 10% of U.S. money": "it costs $ 5.00 or 10 % of u.s. money",
    "cannot gonna wanna gimme lemme": "can not gon na wan na gim me lem me",
    "black-and-white photo -- old": "black-and-white photo old",
    "e.g. Mr. Smith's 3:30 p.m. train.": "e.g. mr. smith 's 3:30 p.m. train",
    "A & B #1 @home *star* a/b 1/2 and/or": "a & b # 1 @home * star * a/b 1/2 and/or",
    "“quoted” ‘single’ … ...": "quoted single",
    "über Äpfel straße": "über äpfel straße",
    "face with \U0001f600 emoji x": "face with emoji x",
    "flag: Côte d’Ivoire": "flag côte d’ivoire",
    "keycap: #": "keycap #",
    "o'clock O'Brien 'tis rock'n'roll": "o'clock o'brien 't is rock 'n' roll",
    "1,000 people 10-year-old 2nd 4x4 -1": "1,000 people 10-year-old 2nd 4x4 -1",
    "hello_world foo.bar http://a.com/b": "hello_world foo.bar http://a.com/b",
    "1990's No.1 :) it’s don’t": "1990 's no. 1 :-rrb- it 's do n't",
    "Tom &amp; Co. <b>bold</b> £5 €5 ½": "tom & co. <b> bold </b> # 5 $ 5 1/2",
    "go get 'em in the '60s": "go get 'em in the '60s",
    "in a tree.. 6ft. tall, isn't it?": "in a tree 6ft tall is n't it",
    "": "",
    " . , ! ": "",
}


def java_words(texts):
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    lines = tokenizer.tokenize({n: [{"caption": text}] for n, text in enumerate(texts)})
    return [lines[n][0].split() if n in lines else [] for n in range(len(texts))]


@pytest.mark.parametrize("text", SAID_BY_JAVA)
def test_words_are_cut_as_the_java_program_did(text):
    assert " ".join(words(text)) == SAID_BY_JAVA[text]


def captions():
    """A few hundred, of what captions are made of."""
    who = ["A man's dog", "two women in 1950's hats", "the 2-year-old", "Mr. Fox", "they"]
    does = ["isn't riding", "is riding", "can't see", "cannot see", "won't sit on", "holds"]
    what = ["a black-and-white cow", "the U.S. flag", "a $5.00 t-shirt", 'a sign ("STOP")', "1/2"]
    ends = [".", ", at 3:30 p.m.", "; it's grey!", " - really?", " & 10% more..."]
    return [f"{a} {b} {c}{d}" for a in who for b in does for c in what for d in ends]


@pytest.mark.skipif(not HAS_JAVA, reason="no java here: COCO's tokenizer could not be asked")
def test_hundreds_of_captions_are_cut_as_java_cuts_them(capfd):
    texts = [*captions(), *SAID_BY_JAVA]
    differ = [(t, j, words(t)) for t, j in zip(texts, java_words(texts), strict=True)]
    assert not [row for row in differ if row[1] != row[2]]


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_characters="&"), max_size=60))  # "&amp;" is "&"
def test_no_letter_or_digit_of_the_first_plane_is_lost_and_no_blank_is_made(text):
    found = words(text)
    assert all(piece and not any(sign.isspace() for sign in piece) for piece in found)
    plain = unicodedata.normalize("NFC", text).lower().casefold()
    letters = [s for s in plain if s.isalnum() and s < "\U00010000" and s not in "½¼¾⅓⅔"]
    kept = "".join(found).casefold()
    for letter in set(letters):
        assert kept.count(letter) >= letters.count(letter)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_equal_letters_in_other_unicode_forms_are_equal_words(text):
    assert words(unicodedata.normalize("NFD", text)) == words(text)


@pytest.mark.parametrize("unit", ["1", "a.", "<a", "a-b-c/", "1,", "a@", "o'a", "http:", "n't"])
def test_very_long_texts_take_no_long_time(unit):
    began = time.perf_counter()
    assert words(unit * 20_000)
    assert time.perf_counter() - began < 20  # quadratic time would be minutes
