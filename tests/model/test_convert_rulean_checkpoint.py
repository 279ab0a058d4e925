"""Published checkpoints convert and give the published numbers, in all its shapes."""

from __future__ import annotations

import json
from dataclasses import asdict
from unittest.mock import ANY

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

from model.convert_rulean_checkpoint import convert, main
from model.published_config import CheckpointError
from model.rulean_checkpoint import renamed
from tests.model.published_model import PublishedConfig, PublishedModel

SHAPES = {
    "one group": PublishedConfig(),
    "two groups": PublishedConfig(num_hidden_groups=2),
    "two inner layers": PublishedConfig(num_hidden_layers=3, num_inner_groups=2),
    "shared matrices": PublishedConfig(num_hidden_groups=2, share_large_matrices=True),
    "sandwich norm": PublishedConfig(sandwich_norm=True, num_hidden_groups=2, share_large_matrices=True),
    "interleaved with adapters": PublishedConfig(
        num_hidden_groups=4, share_large_matrices=1, num_inner_matrices=2, adapter_dim=3
    ),
    "low-rank matrices with adapters": PublishedConfig(num_hidden_groups=2, lowrank_dim=3, adapter_dim=2),
    "ungated absolute": PublishedConfig(hidden_act_gated=False, position_embedding_type="absolute"),
    "two sets over two groups of two": PublishedConfig(
        num_hidden_groups=2, num_inner_groups=2, share_large_matrices=2, embedding_size=48
    ),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def published(request):
    model = PublishedModel(request.param)
    torch.nn.init.normal_(model.albert.embeddings.word_embeddings.weight[0].detach())
    return model


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 97, (3, 16), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 11:], mask[2, 3:] = 0, 0
    ids[mask == 0] = 0
    types = (torch.arange(16) > 7).long().expand(3, 16)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_outputs_and_gradients_are_the_published_ones(published, inputs):
    model = convert(published.state_dict(), asdict(published.c))
    hidden, pooled, scores, order = published(**inputs)
    encoded = model.albert(**inputs)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, [1, 5, 9]] = torch.tensor([4, 5, 6])
    sop = torch.tensor([0, 1, 1])
    output = model(**inputs, labels=labels, sentence_order_label=sop)
    chosen = labels != -100
    loss = torch.nn.functional.cross_entropy(scores[chosen], labels[chosen])
    loss = loss + torch.nn.functional.cross_entropy(order, sop)
    for ours, theirs in (
        (encoded.last_hidden_state, hidden),
        (encoded.pooler_output, pooled),
        (output.prediction_logits, scores),
        (output.sop_logits, order),
        (output.loss, loss),
    ):
        assert relative_error(ours, theirs) < 1e-5
    loss.backward()
    output.loss.backward()
    published_gradients = {
        name: p.grad for name, p in published.named_parameters(remove_duplicate=False) if p.grad is not None
    }
    expected = renamed(published_gradients, model.config)
    found = {name: p.grad for name, p in model.named_parameters(remove_duplicate=False)}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert relative_error(gradient, expected[name]) < 1e-4, name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_training_mode_gives_the_same_loss(published, inputs, attention):
    model = convert(published.state_dict(), asdict(published.c)).train()
    model.set_attn_implementation(attention)
    _, _, scores, _ = published(**inputs)
    labels = torch.where(inputs["attention_mask"] > 0, inputs["input_ids"], -100)
    chosen = labels != -100
    expected = torch.nn.functional.cross_entropy(scores[chosen], labels[chosen])
    assert relative_error(model(**inputs, labels=labels).loss, expected) < 1e-5


def test_structure_is_read_off_the_keys_and_not_the_config(published, inputs):
    told = {"num_hidden_layers": published.c.num_hidden_layers, "num_attention_heads": 4}
    model = convert(published.state_dict(), told)
    assert relative_error(model(**inputs).prediction_logits, published(**inputs)[2]) < 1e-5
    expected = sum(p.numel() for p in published.parameters())
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_command_writes_a_directory_that_the_auto_classes_load(tmp_path, inputs, suffix):
    published = PublishedModel(SHAPES["shared matrices"])
    state = published.state_dict()
    if suffix == ".pth":
        torch.save({"model": state, "optimizer": {"state": {}}}, tmp_path / "state.pth")
    else:
        save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / "state.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(asdict(published.c)))
    paths = [str(tmp_path / name) for name in ("state" + suffix, "config.json", "new/out")]
    assert main(["--state-dict", paths[0], "--config", paths[1], "--output", paths[2]]) == 0
    _, _, scores, order = published(**inputs)
    both = AutoModelForPreTraining.from_pretrained(paths[2], trust_remote_code=True)(**inputs)
    assert relative_error(both.prediction_logits, scores) < 1e-5
    assert relative_error(both.sop_logits, order) < 1e-5
    masked = AutoModelForMaskedLM.from_pretrained(paths[2], trust_remote_code=True)(**inputs)
    assert relative_error(masked.logits, scores) < 1e-5
    assert not list((tmp_path / "new").glob(".out*"))


def test_a_row_of_padding_attends_to_everything_and_stays_finite(published, inputs):
    inputs["attention_mask"][2] = 0
    ours = convert(published.state_dict(), asdict(published.c))(**inputs).prediction_logits
    # scores of -10000 and something carry only three decimals in fp32, here as there
    assert relative_error(ours, published(**inputs)[2]) < 1e-3


def test_an_untied_decoder_stays_untied(inputs):
    published = PublishedModel(SHAPES["one group"])
    published.predictions.decoder.weight = torch.nn.Parameter(torch.randn(97, 24))
    model = convert(published.state_dict(), asdict(published.c))
    assert not model.config.tie_word_embeddings
    assert relative_error(model(**inputs).prediction_logits, published(**inputs)[2]) < 1e-5


def test_a_resized_vocabulary_is_taken_from_the_embedding():
    published = PublishedModel(SHAPES["one group"])
    model = convert(published.state_dict(), asdict(published.c) | {"vocab_size": 50})
    assert model.config.vocab_size == 97


def broken(name):
    """A state dict and a config with one thing wrong."""
    published = PublishedModel(SHAPES["two groups"])
    state, config = dict(published.state_dict()), asdict(published.c)
    if name == "unknown key":
        state["albert.transformer.layer_groups.0.layers.0.ffn.gate.weight"] = torch.zeros(2, 2)
    elif name == "missing key":
        del state["predictions.dense.bias"]
    elif name == "two biases":
        state["predictions.bias"] = state["predictions.bias"] + 1
    elif name == "block sparse":
        config["block_size"] = 16
    elif name == "missing group":
        state = {k: v for k, v in state.items() if ".layer_groups.0." not in k}
    elif name == "heads":
        config["num_attention_heads"] = 7
    elif name == "shape":
        state["albert.pooler.weight"] = torch.zeros(3, 3)
    elif name == "other model":
        state = {"bert.embeddings.weight": torch.zeros(2, 2)}
    return state, config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown key", "ffn.gate.weight"),
        ("missing key", "predictions.dense.bias"),
        ("two biases", "predictions"),
        ("block sparse", "block_size"),
        ("missing group", "layer_groups"),
        ("heads", "num_attention_heads 7"),
        ("shape", "albert.pooler.weight"),
        ("other model", "layer_groups"),
    ],
)
def test_what_fits_nothing_is_named(name, message):
    with pytest.raises(CheckpointError, match=message):
        convert(*broken(name))


class Exploit:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.fixture
def published_files(tmp_path):
    """The options of a conversion that works, and the state dict that it converts."""
    published = PublishedModel(SHAPES["two groups"])
    state = dict(published.state_dict())
    torch.save({"model": state}, tmp_path / "state.pth")
    (tmp_path / "config.json").write_text(json.dumps(asdict(published.c)))
    names = {"--state-dict": "state.pth", "--config": "config.json", "--output": "out"}
    return {option: tmp_path / name for option, name in names.items()}, state


def refused(options, capsys, folder):
    """Convert, and return the exit code and the one line on stderr; nothing new must be left in `folder`."""
    before = sorted(path.name for path in folder.iterdir())
    code = main([str(word) for pair in options.items() for word in pair])
    captured = capsys.readouterr()
    assert "unpickled" not in captured.out
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before
    return code, captured.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("absent.pth", None),
        ("garbage.pth", b"not a checkpoint"),
        ("garbage.safetensors", b"not a checkpoint"),
        ("empty.pth", b""),
        ("evil.pth", {"model": Exploit()}),
        ("list.pth", [1, 2]),
        ("numbers.pth", {"model": {1: torch.zeros(2)}}),
        ("few_bytes.pth", 300),
        ("most_bytes.pth", -300),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing_behind(tmp_path, capsys, published_files, name, content):
    options, _ = published_files
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, int):  # that many bytes of the whole file
        (tmp_path / name).write_bytes(options["--state-dict"].read_bytes()[:content])
    elif content is not None:
        torch.save(content, tmp_path / name)
    code, line = refused(options | {"--state-dict": tmp_path / name}, capsys, tmp_path)
    assert code == 2
    assert name in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("albert.pooler.bias", torch.full((48,), torch.nan)),
        ("albert.pooler.bias", torch.zeros(48, dtype=torch.complex64)),
        ("albert.pooler.weight", torch.eye(48).to_sparse()),
        ("albert.pooler.weight", torch.zeros(48, 48, device="meta")),
        ("albert.embeddings.word_embeddings.weight", torch.zeros(0, 24)),
        ("two\nlines", torch.zeros(1)),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path, capsys, published_files, key, value):
    options, state = published_files
    torch.save({"model": state | {key: value}}, options["--state-dict"])
    code, line = refused(options, capsys, tmp_path)
    assert code == 2
    assert " ".join(key.split()) in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 0),
        ("num_hidden_layers", "six"),
        ("num_hidden_layers", 10**9),
        ("hidden_act", "sine"),
        ("layer_norm_eps", None),
        ("hidden_dropout_prob", 2),
        ("pad_token_id", 97),
        ("share_large_matrices", "some"),
    ],
)
def test_a_value_that_no_config_can_have_is_named(tmp_path, capsys, published_files, key, value):
    options, _ = published_files
    config = json.loads(options["--config"].read_text())
    options["--config"].write_text(json.dumps(config | {key: value}))
    code, line = refused(options, capsys, tmp_path)
    assert code == 2
    assert key in line
    assert str(value) in line


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000, "\0"])
def test_a_config_that_is_no_object_is_named(tmp_path, capsys, published_files, content):
    options, _ = published_files
    options["--config"].write_text(content)
    assert refused(options, capsys, tmp_path) == (2, ANY)


def test_a_config_of_another_checkpoint_is_told(capsys, published_files):
    options, _ = published_files
    config = json.loads(options["--config"].read_text())
    options["--config"].write_text(json.dumps(config | {"hidden_size": 96, "num_hidden_groups": 1}))
    assert main([str(word) for pair in options.items() for word in pair]) == 0
    note = capsys.readouterr().err
    assert "hidden_size 96 (found: 48)" in note
    assert "num_hidden_groups 1 (found: 2)" in note


def test_what_is_in_the_way_is_kept(tmp_path, capsys, published_files):
    options, _ = published_files
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for output in ("folder", "folder/mine", "link"):
        assert refused(options | {"--output": tmp_path / output}, capsys, tmp_path) == (2, ANY)
    assert refused(options | {"--output": tmp_path / "folder/mine/deeper"}, capsys, tmp_path) == (1, ANY)
    assert (tmp_path / "folder" / "mine").read_text() == "kept"


def test_an_empty_directory_is_filled(tmp_path, published_files):
    options, _ = published_files
    options["--output"].mkdir()
    assert main([str(word) for pair in options.items() for word in pair]) == 0
    assert (options["--output"] / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (None, None),
        ("tokenizer.json", "{bad"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Sorcery"}}'),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["evil.X", null]}}',
        ),
    ],
)
def test_a_bad_tokenizer_is_one_line(tmp_path, capsys, published_files, name, content):
    options, _ = published_files
    folder = tmp_path / "tokenizer"
    if name is not None:
        folder.mkdir()
        (folder / name).write_text(content)
    (tmp_path / "evil.py").write_text("print('unpickled')")
    code, line = refused(options | {"--tokenizer": folder}, capsys, tmp_path)
    assert code == 2
    assert str(folder) in line


def test_a_full_disk_leaves_nothing_behind(tmp_path, capsys, published_files):
    resource = pytest.importorskip("resource")
    options, _ = published_files
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # room for the code, not for the weights
    try:
        code, line = refused(options, capsys, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert "could not be written" in line
