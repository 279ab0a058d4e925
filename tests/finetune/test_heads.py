"""Heads with tokenizers of every kind: spans lie on their words, long texts lose nothing, scores come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.encoder import Encoder, longest_input
from finetune.heads.answer import AnswerExample, AnswerHead
from finetune.heads.entity import EntityExample, EntityHead, Mention
from finetune.heads.sequence import SequenceHead, TextExample
from finetune.heads.span_pair import SpanPairExample, SpanPairHead
from finetune.heads.token import TokenExample, TokenHead
from finetune.pooling import mean_of_spans
from finetune.tags import Entity, entities_to_tags, tags_to_entities
from tests.finetune.tiny_models import MAKERS

ARCHITECTURES = pytest.mark.parametrize("architecture", MAKERS)
SENTENCE = "кошка видит: «Собака» идёт"


def letters(text: str) -> str:
    return "".join(letter for letter in text.lower().replace("ё", "е") if letter.isalnum())


def text_of_tokens(tokenizer, ids, span) -> str:
    return letters(tokenizer.decode(ids[slice(*span)]))


@ARCHITECTURES
@pytest.mark.parametrize("word", ["кошка", "Собака", "идёт"])
def test_token_ranges_decode_to_the_words_of_both_texts(models, architecture, word):
    tokenizer = Encoder(str(models[architecture])).tokenizer()
    start = SENTENCE.index(word)
    span = (start, start + len(word))
    example = SpanPairExample(0, SENTENCE, SENTENCE, ((0, *span), (1, *span)), 1)
    (row,) = SpanPairHead().features([example], tokenizer, 64).rows
    first, second = row["spans"]
    assert text_of_tokens(tokenizer, row["input_ids"], first) == letters(word)
    assert text_of_tokens(tokenizer, row["input_ids"], second) == letters(word)
    assert first[1] <= second[0]


@ARCHITECTURES
def test_a_span_that_is_cut_off_falls_back_to_the_first_token_and_is_counted(models, architecture):
    tokenizer = Encoder(str(models[architecture])).tokenizer()
    text = SENTENCE * 10
    example = SpanPairExample(0, text, None, ((0, 0, 5), (0, len(text) - 4, len(text))), 1)
    features = SpanPairHead().features([example], tokenizer, 32)
    assert features.rows[0]["spans"][1] == (0, 1)
    assert features.notes == {"spans cut off by the model's length": 1}


def test_pooling_is_the_mean_of_the_spans_tokens():
    hidden = torch.arange(12.0).view(1, 4, 3)
    spans = torch.tensor([[[1, 3], [0, 1], [0, 0]]])
    pooled = mean_of_spans(hidden, spans)
    torch.testing.assert_close(pooled[0, 0], hidden[0, 1:3].mean(0))
    torch.testing.assert_close(pooled[0, 1], hidden[0, 0])
    assert not pooled[0, 2].any()


@ARCHITECTURES
def test_no_input_is_longer_than_the_model(models, architecture):
    encoder = Encoder(str(models[architecture]))
    tokenizer, config = encoder.tokenizer(), encoder.config()
    limit = longest_input(config, tokenizer)
    assert limit == {"lean_albert": 66, "bert": 64, "roberta": 64}[architecture]
    features = SequenceHead().features([TextExample(0, SENTENCE * 20, SENTENCE * 20, 0)], tokenizer, limit)
    assert len(features.rows[0]["input_ids"]) == limit
    assert features.notes == {"texts cut to the model's length": 1}
    model = SequenceHead().build(encoder, ("a", "b"))
    model(**SequenceHead().collate(tokenizer)(features.rows))


def test_an_empty_text_is_still_an_input(models):
    tokenizer = Encoder(str(models["lean_albert"])).tokenizer()
    features = SequenceHead().features([TextExample(0, "", "", None)], tokenizer, 32)
    assert len(features.rows[0]["input_ids"]) == 3


def entity_example(passage: str, names: list[str]) -> EntityExample:
    places = [(passage.index(name), number) for number, name in enumerate(names)]
    mentions = tuple(Mention(start, start + len(names[number]), number) for start, number in places)
    query = "домой идёт @placeholder и слышит"
    return EntityExample(0, passage, query, (11, 23), tuple(names), mentions, frozenset({1}), (names[1],))


@ARCHITECTURES
def test_entities_of_long_passages_are_found_in_windows_and_their_scores_come_back(models, architecture):
    tokenizer = Encoder(str(models[architecture])).tokenizer()
    passage = "кошка " + "видит и слышит " * 20 + "собака " + "видит и слышит " * 20 + "лошадь"
    example = entity_example(passage, ["кошка", "собака", "лошадь"])
    head = EntityHead()
    features = head.features([example], tokenizer, 48)
    assert len(features.rows) > 1
    assert features.notes == {"passages read in several windows": 1}
    seen = set()
    for row in features.rows:
        assert len(row["input_ids"]) <= 48
        assert tokenizer.mask_token in tokenizer.decode(row["input_ids"][slice(*row["placeholder"][0])])
        for span, candidate, label in zip(row["mentions"], row["candidates"], row["labels"], strict=True):
            assert text_of_tokens(tokenizer, row["input_ids"], span) == example.candidates[candidate]
            assert label == float(candidate == 1)
            seen.add(candidate)
    assert seen == {0, 1, 2}
    width = max(len(row["candidates"]) for row in features.rows)
    outputs = np.full((len(features.rows), width), -100.0)  # as the Trainer pads
    for logits, row in zip(outputs, features.rows, strict=True):
        for place, candidate in enumerate(row["candidates"]):
            logits[place] = (1.0, 5.0, -2.0)[candidate]
    assert head.scores(outputs, features, [example])[0].tolist() == [1.0, 5.0, -2.0]


def test_a_query_longer_than_the_model_keeps_its_placeholder(models):
    tokenizer = Encoder(str(models["lean_albert"])).tokenizer()
    query = "слышит и видит " * 40 + "@placeholder" + " идёт домой" * 40
    place = query.index("@")
    example = EntityExample(
        0,
        "кошка идёт",
        query,
        (place, place + 12),
        ("кошка",),
        (Mention(0, 5, 0),),
        frozenset({0}),
        ("кошка",),
    )
    (row,) = EntityHead().features([example], tokenizer, 48).rows
    assert tokenizer.mask_token in tokenizer.decode(row["input_ids"][slice(*row["placeholder"][0])])


@ARCHITECTURES
def test_words_of_long_texts_are_tagged_at_their_first_token(models, architecture):
    tokenizer = Encoder(str(models[architecture])).tokenizer()
    words = ["Собака", "видит", "кошку"] * 15
    text = " ".join(words)
    places, start = [], 0
    for one in words:
        places.append((start, start + len(one)))
        start += len(one) + 1
    entities = tuple(
        Entity(*place, "PET") for place, one in zip(places, words, strict=True) if one == "Собака"
    )
    head = TokenHead()
    head.tags = ["O", "B-PET", "I-PET"]
    example = TokenExample(0, text, tuple(places), entities)
    features = head.features([example], tokenizer, 32)
    assert len(features.rows) > 2
    assert {word for row in features.rows for word in row["words"]} == set(range(45))
    outputs = np.full((len(features.rows), 32, 3), -100.0)
    for logits, row in zip(outputs, features.rows, strict=True):
        logits[: len(row["labels"])] = 0
        for token, label in enumerate(row["labels"]):
            if label >= 0:
                logits[token, label] = 1
    tags = [head.tags[int(np.argmax(k))] for k in head.scores(outputs, features, [example])[0]]
    assert tags == ["B-PET", "O", "O"] * 15


@ARCHITECTURES
def test_answers_in_long_contexts_come_back_letter_by_letter(models, architecture):
    tokenizer = Encoder(str(models[architecture])).tokenizer()
    context = "кошка видит и слышит. " * 12 + "домой идёт Собака, и Лошадь видит."
    start = context.index("Собака")
    example = AnswerExample("q", "Кто идёт домой?", context, (("Собака", start),))
    head = AnswerHead()
    features = head.features([example], tokenizer, 48)
    assert len(features.rows) > 1
    found = [row["answer"] for row in features.rows if row["answer"] != (0, 0)]
    assert found
    first, last = np.zeros((2, len(features.rows), 48))
    for number, row in enumerate(features.rows):
        if row["answer"] != (0, 0):
            first[number, row["answer"][0]] = last[number, row["answer"][1]] = 9.0
    best = head.scores((first, last), features, [example])[0][0]
    assert best.text == "Собака"


def test_a_question_longer_than_the_model_leaves_room_for_the_context(models):
    tokenizer = Encoder(str(models["lean_albert"])).tokenizer()
    example = AnswerExample("q", "Кто идёт домой и слышит? " * 30, "Собака идёт.", (("Собака", 0),))
    rows = AnswerHead().features([example], tokenizer, 48).rows
    assert all(len(row["input_ids"]) <= 48 for row in rows)


def test_tags_and_entities_are_inverse_to_each_other():
    words = ((0, 2), (3, 5), (6, 8), (9, 11))
    entities = [Entity(0, 5, "PER"), Entity(6, 8, "PER"), Entity(9, 11, "LOC")]
    tags = entities_to_tags(words, entities)
    assert tags == ["B-PER", "I-PER", "B-PER", "B-LOC"]
    assert tags_to_entities(words, tags) == entities


def test_an_inside_tag_without_its_beginning_opens_an_entity():
    words = ((0, 2), (3, 5), (6, 8))
    assert tags_to_entities(words, ["I-PER", "I-LOC", "O"]) == [Entity(0, 2, "PER"), Entity(3, 5, "LOC")]


def test_batches_of_like_length_do_not_mix_the_examples_up(models):
    tokenizer = Encoder(str(models["lean_albert"])).tokenizer()
    head, texts = SequenceHead(), ["кошка", "кошка видит и слышит", "", "собака идёт"]
    examples = [TextExample(number, text, None, 0) for number, text in enumerate(texts)]
    features = head.features(examples, tokenizer, 32).by_length()
    lengths = [len(row["input_ids"]) for row in features.rows]
    assert lengths == sorted(lengths, reverse=True)
    outputs = np.array([[float(length), 0.0] for length in lengths])
    scores = head.scores(outputs, features, examples)
    assert [score[0] for score in scores] == [len(tokenizer(text)["input_ids"]) for text in texts]
