"""Models of transformers as encoders, from folders that the tests write: nothing is fetched."""

import builtins
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from encdec_train import cli
from encdec_train.encoders.hf import Hf, HfConfig
from encdec_train.export.encoder import load
from encdec_train.launch import compose
from encdec_train.train.run import train
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens
from tests.runs import small

transformers = pytest.importorskip("transformers")

BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
TEXTS = {
    "bert": BERT,
    "roberta": BERT,
    "modernbert": {**BERT, **ENDS},
    "electra": {**BERT, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 40},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 40},
}
VIT = {**BERT, "image_size": 8, "patch_size": 2, "num_channels": 1}
del VIT["vocab_size"]
CONV = {"num_channels": 1, "hidden_sizes": [8, 16], "depths": [1, 1]}
PICTURES = {  # options, prefix, lattice of an 8 x 8 picture
    "vit": (VIT, 1, (4, 4)),
    "deit": (VIT, 2, (4, 4)),
    "dinov2": ({key: value for key, value in VIT.items() if key != "intermediate_size"}, 1, (4, 4)),
    "resnet": ({**CONV, "embedding_size": 8, "layer_type": "basic"}, 0, (1, 1)),
    "convnext": ({**CONV, "patch_size": 2, "num_stages": 2}, 0, (2, 2)),
    "swin": (
        {"image_size": 8, "patch_size": 1, "num_channels": 1, "embed_dim": 8}
        | {"depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
        0,
        (4, 4),
    ),
}


def write(folder, kind, options):
    """A tiny model in a folder, and the model itself."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **options))
    model.save_pretrained(folder)
    return model.eval()


def rows(width=16, length=6, **changes):
    return Spec(kind="vectors", width=width, length=length, **changes)


def pixels(side=8, channels=1, **changes):
    view = Spec(kind="values", width=channels, length=side * side, grid=(side, side), coords=2)
    return replace(view, kind="vectors", features=channels, raw=view, **changes)


def vectors(width, lengths=(6, 4)):
    n = max(lengths)
    place = torch.arange(n).expand(len(lengths), n)
    valid = place < torch.tensor(lengths)[:, None]
    return Tokens(x=torch.randn(len(lengths), n, width), sites=Sites(sample=place, place=place, valid=valid))


def whole_picture(side=8, channels=1):
    place = torch.arange(side * side).expand(2, -1)
    sites = Sites(sample=torch.tensor([[3], [4]]).expand_as(place), place=place, grid=(side, side))
    return Tokens(x=torch.randn(2, side * side, channels), sites=sites)


def build(config, upstream):
    """On the meta device first, as the dry run does."""
    with torch.device("meta"):
        spec, dry = config.spec(upstream), Hf(config, upstream)
    assert all(parameter.is_meta for parameter in dry.parameters())
    part = Hf(config, upstream)
    assert part.state_dict().keys() == dry.state_dict().keys()
    return spec, part


@pytest.mark.parametrize("kind", TEXTS)
def test_models_of_text_give_what_transformers_does(kind, tmp_path):
    theirs = write(tmp_path, kind, TEXTS[kind])
    config = HfConfig(model=str(tmp_path), pretrained=True)
    assert config.reads == (8 if kind == "electra" else 16)
    spec, ours = build(config, rows(config.reads))
    tokens = vectors(config.reads)
    encoder = theirs.get_encoder() if kind == "t5" else theirs
    with torch.no_grad():
        found = ours.eval()(tokens).x
        mask = tokens.sites.valid.long()
        expected = encoder(inputs_embeds=tokens.x, attention_mask=mask).last_hidden_state
    assert (spec.width, spec.length, spec.rows, spec.prefix) == (16, 6, "all", 0)
    assert expected[0].abs().max() > 0.1
    torch.testing.assert_close(found[tokens.sites.valid], expected[tokens.sites.valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", PICTURES)
def test_models_of_pictures_give_what_transformers_does(kind, tmp_path):
    options, prefix, grid = PICTURES[kind]
    theirs = write(tmp_path, kind, options)
    config = HfConfig(model=str(tmp_path), pretrained=True)
    assert config.reads is None
    spec, ours = build(config, pixels())
    tokens = whole_picture()
    with torch.no_grad():
        found = ours.eval()(tokens)
        picture = tokens.x.unflatten(1, (8, 8)).permute(0, 3, 1, 2)
        expected = theirs(pixel_values=picture).last_hidden_state
    if expected.dim() == 4:
        expected = expected.flatten(2).transpose(1, 2)
    assert (spec.prefix, spec.grid, spec.rows, spec.width) == (prefix, grid, "coarse", 16)
    assert (found.prefix, found.sites.grid, found.sites.n) == (prefix, grid, spec.length)
    assert found.sites.sample[:, 0].tolist() == [3, 4]
    torch.testing.assert_close(found.x, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [*TEXTS, *PICTURES])
def test_every_parameter_gets_a_gradient(kind):
    options = TEXTS[kind] if kind in TEXTS else PICTURES[kind][0]
    config = HfConfig(options={"model_type": kind, **options})
    upstream, tokens = (rows(config.reads), vectors(config.reads)) if kind in TEXTS else (pixels(), whole_picture())
    part = build(config, upstream)[1]
    part(tokens).x.square().sum().backward()
    assert all(parameter.grad is not None for parameter in part.parameters())


@pytest.mark.parametrize("kind", [*TEXTS, *PICTURES])
def test_a_part_is_built_again_without_its_folder(kind, tmp_path):
    write(tmp_path, kind, TEXTS[kind] if kind in TEXTS else PICTURES[kind][0])
    config = HfConfig(model=str(tmp_path), pretrained=True)
    upstream = rows(config.reads) if kind in TEXTS else pixels()
    part = Hf(config, upstream)
    own = json.loads(json.dumps(part.portable()))
    again = Hf(replace(config, **own), upstream)
    assert str(tmp_path) not in json.dumps(own)
    again.load_state_dict(part.state_dict())


def test_weights_are_fresh_unless_asked_for_and_options_change_the_configuration(tmp_path):
    theirs = write(tmp_path, "bert", BERT)
    fresh = Hf(HfConfig(model=str(tmp_path)), rows())
    key = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(fresh.model.state_dict()[key], theirs.state_dict()[key])
    deeper = HfConfig(model=str(tmp_path), options={"num_hidden_layers": 3, "hidden_dropout_prob": 0.0})
    assert len(Hf(deeper, rows()).model.encoder.layer) == 3
    with pytest.raises(Mismatch, match=r"pretrained: '.*' has no weights for 16 parameters: encoder.layer.2"):
        Hf(replace(deeper, pretrained=True), rows())


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        (Spec(kind="ids", width=16), "needs vectors"),
        (rows(12), "reads vectors of width 16, it is given 12"),
        (rows(docs=True), "packs several: set transform.layout=padded"),
        (rows(edges=True), "edges"),
        (rows(prefix=1), "prefix"),
        (replace(rows(), rows="kept"), "given kept sites"),
        (rows(length=600), "has 512 places"),
    ],
)
def test_rows_that_a_model_of_text_cannot_read_are_refused(upstream, said):
    with pytest.raises(Mismatch, match=said):
        HfConfig(options={"model_type": "bert", **BERT}).spec(upstream)


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        (rows(1), "reads pictures"),
        (pixels(grid=None), "it is given no lattice"),
        (pixels(prefix=1), "prefix"),
        (pixels(channels=4), "pixels of 1 channels, a site has 4 values"),
        (pixels(side=6), "does not read pictures of .1, 6, 6."),
    ],
)
def test_what_a_model_of_pictures_cannot_read_is_refused(upstream, said):
    with pytest.raises(Mismatch, match=said):
        HfConfig(options={"model_type": "vit", **VIT}).spec(upstream)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (HfConfig(), "give a name on the hub or a folder"),
        (HfConfig(model="/nowhere/at/all"), "'/nowhere/at/all' cannot be read or found"),
        (HfConfig(options={"model_type": "bort"}), "model_type 'bort' cannot be read"),
        (HfConfig(options={"model_type": "bert", "hidden_sice": 3}), "a bert has no 'hidden_sice'.*'hidden_size'"),
        (HfConfig(options={"model_type": "bert"}, pretrained=True), "no weights without encoder.model"),
        (HfConfig(options={"model_type": "clip"}), "encodes neither vectors nor pictures|cannot be made"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(config, said):
    with pytest.raises(Mismatch, match=said) as caught:
        config.spec(rows())
    assert "\n" not in str(caught.value)


def test_roberta_counts_places_from_behind_its_padding_id():
    config = HfConfig(options={"model_type": "roberta", **BERT, "max_position_embeddings": 10, "pad_token_id": 1})
    assert config.spec(rows(length=8)).width == 16
    with pytest.raises(Mismatch, match="has 8 places"):
        config.spec(rows(length=9))


def test_an_attention_pattern_and_dropped_pixels_are_refused():
    part = Hf(HfConfig(options={"model_type": "bert", **BERT}), rows())
    with pytest.raises(Mismatch, match="attention pattern"):
        part(vectors(16), Attend(causal=True))
    part, given = Hf(HfConfig(options={"model_type": "vit", **VIT}), pixels()), whole_picture()
    kept = given.sites.take(torch.arange(9).expand(2, 9))
    with pytest.raises(Mismatch, match="full lattice"):
        part(Tokens(x=given.x[:, :9], sites=kept))


def test_pickled_weights_and_code_of_a_model_are_not_read(tmp_path):
    model = write(tmp_path, "bert", BERT)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(Mismatch, match="cannot be made"):
        Hf(HfConfig(model=str(tmp_path), pretrained=True), rows())
    described = json.loads((tmp_path / "config.json").read_text())
    described |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.MineConfig", "AutoModel": "code.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')\n")
    other = tmp_path.rename(tmp_path.with_name("mine"))
    with pytest.raises(Mismatch, match="cannot be read"):
        HfConfig(model=str(other)).spec(rows())


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "transformers":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Mismatch, match=r"needs the extra 'hf': pip install 'encdec-train\[hf\]'"):
        HfConfig(options={"model_type": "bert", "vocab_size": 41}).spec(rows())


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize("name", ["", "main."])
def test_options_are_said_on_the_command_line(plus, name):
    said = [f"{plus}encoder.{name}options={{model_type: bert, hidden_size: 8}}", f"{plus}encoder.{name}options.pad=3"]
    config = compose(["encoder=hf", *said]).encoder["main"]
    assert config.options == {"model_type": "bert", "hidden_size": 8, "pad": 3}


def test_an_unknown_name_ends_the_command_with_one_line(tmp_path, capsys):
    arguments = ["encoder=hf", "encoder.model=/nowhere/at/all", f"run.root={tmp_path}/runs"]
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("encoder 'hf'.model: '/nowhere/at/all'")
    assert not (tmp_path / "runs").exists()


def gone(folder, source):
    """The exported encoder loads where the folder that it came from is no more, with the weights of the run."""
    source.rename(source.with_name("elsewhere"))
    part = load(folder / "encoder").parts.get("encoder", "main")
    saved = load_file(folder / "encoder" / "model.safetensors")
    state = part.state_dict()
    assert {f"encoder.{name}" for name in state} == {name for name in saved if name.startswith("encoder.")}
    assert all(torch.equal(value, saved[f"encoder.{name}"]) for name, value in state.items())
    return part


def test_masked_language_model(tmp_path):
    source = tmp_path / "model"
    write(source, "bert", {**BERT, "max_position_embeddings": 32})
    summary = train(
        small(
            "bert",
            tmp_path,
            *("encoder=hf", f"encoder.model={source}", "encoder.pretrained=true", "embedder=ids"),
            *("transform.layout=padded", "transform.length=32", "transform.vocabulary=300"),
            steps=2,
        )
    )
    assert summary["loss"]["first"] != summary["loss"]["last"]
    part = gone(tmp_path / "bert" / "run", source)
    assert part.width == 16 and len(part.model.encoder.layer) == 2


def test_agreement_of_two_crops(tmp_path):
    source = tmp_path / "model"
    theirs = write(source, "vit", VIT)
    summary = train(small("simclr_resnet", tmp_path, "encoder=hf", f"encoder.model={source}", steps=2))
    assert summary["loss"]["first"] != summary["loss"]["last"]
    here = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith("pooler"))
    assert summary["parameters"]["encoder.main"] == here
    part = gone(tmp_path / "simclr_resnet" / "run", source)
    assert (part.width, part.prefix) == (16, 1)
