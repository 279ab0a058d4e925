"""Repairs of spans: every published defect is mended and counted, what is right stays as it is."""

from __future__ import annotations

import pytest

from finetune.span_repair import SpanRepair

SENTENCE = "На столе лежал старый ключ ."
START = SENTENCE.index("ключ")


@pytest.fixture
def repair() -> SpanRepair:
    return SpanRepair()


def word(span: tuple[int, int], text: str = SENTENCE) -> str:
    return text[slice(*span)]


def test_a_right_span_is_left_alone_and_not_counted(repair):
    assert repair.of_word(SENTENCE, START, START + 4, "ключ") == (START, START + 4)
    assert not repair.counts


def test_an_inflected_form_is_the_right_word(repair):
    text = "Он собирал ключами звон."
    start = text.index("ключами")
    assert repair.of_word(text, start, start + 7, "ключ") == (start, start + 7)
    assert not repair.counts


@pytest.mark.parametrize(
    ("start", "end", "kind"),
    [
        (START, 99, "beyond the text"),
        (START - 1, START + 5, "spaces inside"),
        (START, START + 2, "cut short"),
        (START + 1, START + 4, "cut short"),
        (0, 2, "on another word"),
    ],
)
def test_each_defect_is_mended_and_counted(repair, start, end, kind):
    assert word(repair.of_word(SENTENCE, start, end, "ключ")) == "ключ"
    assert repair.counts[kind] == 1


def test_of_several_forms_of_the_word_the_nearest_is_taken(repair):
    text = "Ключ потерян, и вот второй ключ, а третьего ключа нет."
    place = text.index("второй")
    assert repair.of_word(text, place, place + 6, "ключ")[0] == text.index("ключ,")


def test_a_word_that_morphology_does_not_know_is_found_by_likeness(repair):
    text = "Мы видели глокую куздру вчера."
    assert word(repair.of_word(text, 0, 2, "куздра"), text) == "куздру"
    assert repair.counts == {"on another word": 1}


def test_yo_and_ye_are_one_letter(repair):
    text = "Зелёный клён у дома"
    start = text.index("клён")
    assert repair.of_word(text, start, start + 4, "клен") == (start, start + 4)
    assert not repair.counts


def test_a_word_that_is_nowhere_keeps_its_place_and_is_counted(repair):
    assert repair.of_word(SENTENCE, 0, 2, "экскаватор") == (0, 2)
    assert repair.counts == {"not found": 1}
    assert repair.of_word("", 0, 5, "ключ") == (0, 0)


def test_hyphenated_parts_are_words_of_their_own(repair):
    text = "Приехал Франк-Вальтер Штайнмайер."
    start = text.index("Вальтер")
    assert repair.of_text(text, start, start + 7) == (start, start + 7)


def test_a_span_of_punctuation_only_is_empty(repair):
    start, end = repair.of_text("Да . Нет", 3, 4)
    assert start == end


def test_negative_and_reversed_spans_do_no_harm(repair):
    assert word(repair.of_word(SENTENCE, -5, -1, "ключ")) == "ключ"
    assert word(repair.of_word(SENTENCE, 20, 3, "ключ")) == "ключ"


def test_a_phrase_is_found_where_the_index_says(repair):
    text = 'Мэри сказала, что "Мэри" дома.'
    assert repair.of_phrase(text, "Мэри", text.index('"')) == (text.index('"') + 1, text.index('"') + 5)
    assert not repair.counts


def test_a_phrase_elsewhere_is_counted(repair):
    text = "Мэри поблагодарила Анну."
    assert word(repair.of_phrase(text, "Анну", 0), text) == "Анну"
    assert repair.counts == {"on another word": 1}


def test_a_phrase_spelled_otherwise_is_found(repair):
    text = "У Мюриэль в бальном зале портрет балерины. Вокруг толпу видно."
    assert word(repair.of_phrase(text, "бальный зал", None), text) == "бальном зале"
    assert word(repair.of_phrase(text, "толпа", None), text) == "толпу"
    assert repair.counts == {"spelled differently": 2}


def test_counts_become_notes():
    repair = SpanRepair()
    repair.of_word(SENTENCE, START, 99, "ключ")
    assert repair.notes() == {"spans repaired: beyond the text": 1}
