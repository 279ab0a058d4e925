"""What users of Hugging Face encoders rely on, for every head."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, pipeline

import model as package
from model import LeanAlbertForMaskedLM, LeanAlbertForPreTraining, LeanAlbertModel

HEADS = [
    "LeanAlbertModel",
    "LeanAlbertForPreTraining",
    "LeanAlbertForMaskedLM",
    "LeanAlbertForSequenceClassification",
    "LeanAlbertForTokenClassification",
    "LeanAlbertForQuestionAnswering",
    "LeanAlbertForMultipleChoice",
]


@pytest.fixture(params=HEADS)
def model(request, small_config):
    return getattr(package, request.param)(small_config(num_labels=3)).eval()


@pytest.fixture(params=HEADS[1:])
def model_with_loss(request, small_config):
    return getattr(package, request.param)(small_config(num_labels=3)).train()


def inputs_for(model, batch, labels=False):
    name, ids = type(model).__name__, batch["input_ids"]
    inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    if name.endswith("MultipleChoice"):
        inputs = {key: value[:, None].repeat(1, 4, 1) for key, value in inputs.items()}
        inputs["input_ids"][:, :, 3] = torch.arange(20, 24)
    if not labels or name == "LeanAlbertModel":
        return inputs
    if name.endswith("QuestionAnswering"):
        return inputs | {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 99])}
    if name.endswith(("SequenceClassification", "MultipleChoice")):
        return inputs | {"labels": torch.tensor([1, 2])}
    if name.endswith("TokenClassification"):
        return inputs | {"labels": ids % 3}
    inputs["labels"] = batch["labels"]
    return inputs | ({"sentence_order_label": torch.tensor([0, 1])} if name.endswith("PreTraining") else {})


def first_output(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def test_save_and_load_gives_the_same_numbers(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    inputs = inputs_for(model, batch)
    assert torch.equal(first_output(model, inputs), first_output(again, inputs))


def test_a_head_loads_from_a_pretraining_checkpoint(model, small_config, tmp_path):
    pretrained = LeanAlbertForPreTraining(small_config())
    pretrained.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True, num_labels=3)
    assert not [key for key in report["missing_keys"] if not key.startswith(("classifier.", "qa_outputs."))]
    encoder = loaded if isinstance(loaded, LeanAlbertModel) else loaded.albert
    expected = pretrained.albert.transformer.matrices[0].dense_qkv.weight
    assert torch.equal(encoder.transformer.matrices[0].dense_qkv.weight, expected)


def test_every_parameter_gets_a_gradient_and_training_reduces_the_loss(model_with_loss, batch):
    inputs = inputs_for(model_with_loss, batch, labels=True)
    optimizer = torch.optim.Adam(model_with_loss.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model_with_loss(**inputs).loss
        loss.backward()
        assert all(p.grad is not None for p in model_with_loss.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(model_with_loss, batch, use_reentrant):
    inputs = inputs_for(model_with_loss, batch, labels=True)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model_with_loss.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": use_reentrant}
            )
        model_with_loss.zero_grad()
        model_with_loss(**inputs).loss.backward()
        gradients.append([p.grad.clone() for p in model_with_loss.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_hidden_states_and_attentions_come_one_a_layer(model, batch):
    output = model(**inputs_for(model, batch), output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 5
    assert len(output.attentions) == 4
    rows = output.hidden_states[0].shape[0]
    assert all(state.shape == (rows, 12, 64) for state in output.hidden_states)
    assert all(attention.shape == (rows, 4, 12, 12) for attention in output.attentions)
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(rows, 4, 12))


def test_tuple_output_is_the_dict_output(model, batch):
    inputs = inputs_for(model, batch, labels=True)
    with torch.no_grad():
        as_dict, as_tuple = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    for one, other in zip(as_dict.to_tuple(), as_tuple, strict=True):
        assert torch.equal(one, other)


def test_embeddings_in_place_of_ids(model, batch):
    inputs = inputs_for(model, batch)
    expected = first_output(model, inputs)
    embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(first_output(model, inputs | {"inputs_embeds": embedded}), expected)
    with pytest.raises(ValueError, match="exactly one"):
        model(**inputs)


def test_batching_and_padding_change_nothing(small_config, batch):
    model = LeanAlbertModel(small_config()).eval()
    together = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    alone = model(batch["input_ids"][1:, :9]).last_hidden_state
    torch.testing.assert_close(together[1, :9], alone[0], rtol=1e-4, atol=1e-5)


def test_eager_and_sdpa_agree(small_config, batch):
    outputs = []
    for attention in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = LeanAlbertModel(small_config(), add_pooling_layer=False).eval()
        model.set_attn_implementation(attention)
        outputs.append(model(batch["input_ids"], attention_mask=batch["attention_mask"])[0])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("new_size", [120, 90])
def test_resized_embeddings_stay_tied_and_keep_their_scores(small_config, batch, new_size):
    model = LeanAlbertForMaskedLM(small_config()).eval()
    ids = batch["input_ids"] % 80 + 4
    before = model(ids).logits
    model.resize_token_embeddings(new_size)
    after = model(ids).logits
    assert (
        model.config.vocab_size == new_size == after.shape[-1] == model.get_output_embeddings().bias.shape[0]
    )
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    kept = min(new_size, 101)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])


def test_dropout_is_active_only_while_training(small_config, batch):
    config = small_config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    for attention in ("eager", "sdpa"):
        model = LeanAlbertModel(config)
        model.set_attn_implementation(attention)
        ids = batch["input_ids"]
        assert torch.equal(model.eval()(ids)[0], model(ids)[0])
        assert not torch.equal(model.train()(ids)[0], model(ids)[0])


def test_dropout_gradient_agrees_with_finite_differences(small_config, batch):
    model = LeanAlbertModel(small_config(hidden_dropout_prob=0.5, num_hidden_layers=2)).double().train()
    weight = model.transformer.matrices[0].dense_h2o.weight
    direction = torch.randn_like(weight)

    def loss():
        torch.manual_seed(5)
        return model(batch["input_ids"]).last_hidden_state.square().mean()

    (gradient,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        weight += 1e-6 * direction
        above = loss()
        weight -= 2e-6 * direction
        numeric = (above - loss()) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-8)


def test_residual_stream_stays_fp32_under_autocast(small_config, batch):
    model = LeanAlbertModel(small_config()).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model(batch["input_ids"], output_hidden_states=True).hidden_states
    exact = model(batch["input_ids"], output_hidden_states=True).hidden_states
    assert all(state.dtype == torch.float32 for state in states)
    torch.testing.assert_close(states[-1], exact[-1], rtol=0.1, atol=0.1)


def test_two_models_share_no_weights(small_config):
    one, other = LeanAlbertForMaskedLM(small_config()), LeanAlbertForMaskedLM(small_config())
    pointers = {p.data_ptr() for p in one.parameters()}
    assert not pointers & {p.data_ptr() for p in other.parameters()}


def test_float_attention_mask_is_refused(small_config, batch):
    with pytest.raises(ValueError, match="integer or bool"):
        LeanAlbertModel(small_config())(batch["input_ids"], attention_mask=batch["attention_mask"].float())


@pytest.fixture
def tokenizer():
    words = [
        "<pad>",
        "<unk>",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["мы", "едем", "в", "гости", "к", "бабушке", "на", "поезде", "завтра"],
    ]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, cls_token="[CLS]", sep_token="[SEP]")


def test_fill_mask_pipeline_from_a_saved_directory(small_config, tokenizer, tmp_path):
    LeanAlbertForMaskedLM(small_config(vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fill = pipeline("fill-mask", model=str(tmp_path), trust_remote_code=True)
    answers = fill("мы едем в [MASK] к бабушке", top_k=3)
    assert len(answers) == 3
    assert {"score", "token", "token_str", "sequence"} <= answers[0].keys()


def test_feature_extraction_pipeline_from_a_saved_directory(small_config, tokenizer, tmp_path):
    LeanAlbertForPreTraining(small_config(vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    extract = pipeline("feature-extraction", model=str(tmp_path), trust_remote_code=True)
    assert torch.tensor(extract("мы едем завтра")).shape == (1, 5, 64)
