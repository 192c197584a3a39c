import re

import emoji
import pytest

from simvlm_jax.data.names import ENGLISH, GERMAN, caption


@pytest.mark.parametrize(
    ("short_code", "wanted"),
    [
        (":woman_facepalming_dark_skin_tone:", "woman facepalming: dark skin tone"),
        (
            ":people_holding_hands_medium-light_skin_tone_light_skin_tone:",
            "people holding hands: medium-light skin tone, light skin tone",
        ),
        (":person_medium-dark_skin_tone_bald:", "bald person: medium-dark skin tone"),
        (":woman_light_skin_tone_red_hair:", "woman with red hair: light skin tone"),
        (":man_beard:", "man with a beard"),
        (":family_man_woman_girl_boy:", "family: man, woman, girl, boy"),
        (":family:", "family"),
        (
            ":kiss_woman_man_light_skin_tone_dark_skin_tone:",
            "kiss: woman, man, light skin tone, dark skin tone",
        ),
        (":kiss_mark:", "kiss mark"),
        (":couple_with_heart_medium_skin_tone:", "couple with heart: medium skin tone"),
        (":medium-dark_skin_tone:", "medium-dark skin tone"),
        (":man’s_shoe:", "man's shoe"),
        (":OK_button:", "OK button"),
    ],
)
def test_english(short_code, wanted):
    assert caption(short_code, ENGLISH) == wanted


@pytest.mark.parametrize(
    ("short_code", "wanted"),
    [
        (":fußgänger(in)_helle_hautfarbe:", "fußgänger(in): helle hautfarbe"),
        (
            ":liebespaar_frau_mann_dunkle_hautfarbe,mitteldunkle_hautfarbe:",
            "liebespaar: frau, mann, dunkle hautfarbe, mitteldunkle hautfarbe",
        ),
        (
            ":sich_küssendes_paar_mann_mann_und_helle_hautfarbe:",
            "sich küssendes paar: mann, mann, helle hautfarbe",
        ),
        (":sich_küssendes_paar_mann,_mann:", "sich küssendes paar: mann, mann"),
        (":familie_1_erwachsene(r)_2_kinder:", "familie: 1 erwachsene(r), 2 kinder"),
        (":familie_mann_frau_mädchen_und_junge:", "familie: mann, frau, mädchen, junge"),
        (":person_weißes_haar:", "person mit weißem haar"),
        (":frau_helle_hautfarbe,_blond:", "frau mit blondem haar: helle hautfarbe"),
        (":frau,_die_eine_kopfmassage_bekommt:", "frau, die eine kopfmassage bekommt"),
        (":mittelhelle_hautfarbe:", "mittelhelle hautfarbe"),
    ],
)
def test_german(short_code, wanted):
    assert caption(short_code, GERMAN) == wanted


@pytest.mark.parametrize(
    ("short_code", "language", "wanted"),
    [
        (":Austria:", ENGLISH, "flag: Austria"),
        (":Antigua_&_Barbuda:", ENGLISH, "flag: Antigua and Barbuda"),
        (":flagge_österreich:", GERMAN, "flagge: österreich"),
    ],
)
def test_flags_say_so(short_code, language, wanted):
    assert caption(short_code, language, is_flag=True) == wanted


@pytest.mark.parametrize(("key", "language"), [("en", ENGLISH), ("de", GERMAN)])
def test_all_names_are_readable_and_unambiguous(key, language):
    emoji.config.load_language("de")
    entries = [entry for entry in emoji.EMOJI_DATA.values() if entry["status"] <= 2]
    captions = {entry[key]: caption(entry[key], language) for entry in entries}
    assert len(set(captions.values())) == len(captions) > 3900
    for text in captions.values():
        assert re.fullmatch(r"[^_’,]+(, \w[^_’,]+)*", text), text
        assert text.count(":") <= 1 and "  " not in text, text
    # Every word of a name is still there, apart from what the wording replaces on purpose.
    replaced = {"und", "blond", "blondes", "rotes", "lockiges", "weißes", "&"}
    for name, text in captions.items():
        words = set(re.findall(r"[^\W_]+", name)) - replaced
        assert words <= set(re.findall(r"[^\W_]+", text)), (name, text)
