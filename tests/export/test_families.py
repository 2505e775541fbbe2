"""Runs are handed to transformers and read back, and runs begin with transformers' weights: outputs equal to 1e-5."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from encdec_train import cli
from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.data.tokenizers import TokenizerKind, save
from encdec_train.data.tokenizers import train as learn
from encdec_train.data.transforms.image import picture, unpack
from encdec_train.data.transforms.text import TextConfig
from encdec_train.export import initial
from encdec_train.export.encoder import load
from encdec_train.export.held import held
from encdec_train.export.hf.save import compare, sample
from encdec_train.handover import export
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.train.run import train
from encdec_train.types import Mismatch
from tests.runs import small

transformers = pytest.importorskip("transformers")


def finished(recipe, root, *overrides):
    train(small(recipe, root, "probe=null", *overrides, steps=2))
    return root / recipe / "run"


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """A finished run of a recipe, made once."""
    root = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda recipe, *overrides: finished(recipe, root, *overrides))


@pytest.mark.parametrize(
    ("recipe", "overrides", "name"),
    [
        ("electra", [], "BertModel"),  # the discriminator has no head for ids
        ("t5", [], "T5ForConditionalGeneration"),
        ("mae_vit", [], "ViTModel"),
        ("wav2vec2", [], "Wav2Vec2Model"),
        ("simclr_resnet", ["encoder.stem=imagenet", "encoder.layers=[1,1]"], "ResNetModel"),
    ],
)
def test_to_transformers(recipe, overrides, name, run_of, tmp_path):
    """`export` compares outputs itself; here the class, the card and that nothing of pretraining is there."""
    run = run_of(recipe, *overrides)
    assert export(run, "hf", tmp_path / "out") == name
    model = getattr(transformers, name).from_pretrained(tmp_path / "out")
    assert not [key for key in model.state_dict() if "quantizer" in key or "mask_token" in key]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{name}.from_pretrained" in card and "Verdict: not comparable" not in card and "- batch: 8 rows" in card


def test_the_comparison_sees_a_difference(tmp_path):
    config = small("mae_vit", tmp_path)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    parts, kept = make_parts(config, wiring), held(config, wiring, transform)
    view = transform.specs()["image"]
    side = view.grid[0] * 2
    model = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=96, num_hidden_layers=1, num_attention_heads=3, intermediate_size=8, image_size=side,
            patch_size=2, num_channels=1,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    with pytest.raises(Mismatch, match="ViTModel gives other outputs than the run's parts"):
        compare(model.eval(), kept, parts, transform)


def test_texts_and_sounds_are_prepared_as_here(run_of, tmp_path):
    assert export(run_of("bert"), "hf", tmp_path / "bert_out") == "BertForMaskedLM"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert_out")
    ids = tokenizer("def f(x): return x")["input_ids"]
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
    export(run_of("wav2vec2"), "hf", tmp_path / "sound_out")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "sound_out")
    sound = np.random.default_rng(0).normal(2, 3, 800).astype(np.float32)
    values = extractor(sound, sampling_rate=extractor.sampling_rate)["input_values"][0]
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3


def test_to_timm(tmp_path):
    """Equal outputs are compared by `export` itself."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch raises the latter
        pytest.skip(f"timm: {error}")
    sizes = ["encoder.stem=imagenet", "encoder.layers=[2,2,2,2]", "encoder.channels=64", "encoder.block=basic"]
    run = finished("simclr_resnet", tmp_path, *sizes)
    assert export(run, "timm", tmp_path / "out") == "resnet18"
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=0)
    assert model.conv1.weight.shape == (64, 1, 7, 7)


def test_to_ones_own_format(run_of, tmp_path):
    run = run_of("graphmae")
    export(run, "safetensors", tmp_path / "out")
    assert set(load(tmp_path / "out").parts.state_dict()) == set(load(run / "encoder").parts.state_dict())
    assert json.loads((tmp_path / "out" / "preprocess.json").read_text())["features"]


def test_a_process_of_its_own_knows_the_parts(run_of, tmp_path):
    words = ["export", str(run_of("graphmae")), "--to", "safetensors", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "encdec_train.cli", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert load(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "hf", "out"], "no model of transformers that is known here holds"),
        (["--to", "timm", "out"], "only residual networks are known here, the encoder is a Gin"),
        (["--to", "onnx", "out"], "texts, pictures and sounds can be exported, not a view of kind 'graph'"),
        (["--to", "onxx", "out"], "unknown target 'onxx' (did you mean 'onnx'?)"),
        (["--to", "hf"], "usage: encdec-train export RUN --to"),
        (["--to", "safetensors", "full"], "full: there is something already"),
        (["--to", "safetensors", "full/file/sub"], "full/file is a file; choose a new folder"),
    ],
)
def test_wrong_input(words, said, run_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(run_of("graphmae")), *words])
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["full", "file"]


def test_a_run_without_checkpoints(run_of, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((run_of("graphmae") / "config.yaml").read_text())
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "run"), "--to", "hf", str(tmp_path / "out")])
    assert ended.value.code == 2 and "no checkpoint to go on from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def randomised(model):
    """No zeros and ones, so that every weight matters; stored positions stay."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "position_embeddings" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def bert():
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, vocab_size=96,
        max_position_embeddings=32,
    )  # fmt: skip
    words = ["transform.vocabulary=96", "transform.length=32", "embedder.positions=32"]
    return transformers.BertForMaskedLM(config), [*words, "encoder.width=24", "encoder.heads=3", "encoder.hidden=40"]


def vit_mae():
    config = transformers.ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=8, patch_size=2,
        num_channels=1, decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=1,
        decoder_intermediate_size=8, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.ViTMAEForPreTraining(config)
    for part in (*model.modules(), *model.parameters()):
        part._is_hf_initialized = False  # a model made by its constructor leaves the positions at zero
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(16)
    return model, ["encoder.width=24", "encoder.heads=3", "encoder.hidden=40", "encoder.depth=2"]


def t5():
    config = transformers.T5Config(
        d_model=24, d_kv=8, d_ff=40, num_layers=2, num_decoder_layers=1, num_heads=3, vocab_size=400
    )
    words = [f"{noun}.{key}={value}" for noun in ("encoder", "decoder") for key, value in
             (("width", 24), ("heads", 3), ("head_width", 8), ("hidden", 40))]  # fmt: skip
    return transformers.T5ForConditionalGeneration(config), [*words, "transform.vocabulary=400", "encoder.depth=2"]


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, conv_dim=[8, 8],
        conv_kernel=[10, 4], conv_stride=[5, 4], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8,
    )  # fmt: skip
    words = ["embedder.channels=[8,8]", "embedder.kernels=[10,4]", "embedder.strides=[5,4]",
             "embedder.position_kernel=8", "embedder.position_groups=2"]  # fmt: skip
    sizes = ["encoder.width=24", "encoder.heads=3", "encoder.hidden=40", "encoder.depth=2"]
    return transformers.Wav2Vec2ForPreTraining(config), [*words, *sizes]


def resnet():
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    words = ["encoder.stem=imagenet", "encoder.layers=[1,1]", "encoder.channels=4", "encoder.block=basic"]
    return transformers.ResNetModel(config), words


LINES = [f"{i} and {i * i} are numbers of which one is a square" for i in range(300)]


def begun(recipe, model, overrides, tmp_path, encoders=("encoder",)):
    """Our parts with the weights that `model` was saved with."""
    model.save_pretrained(tmp_path / "theirs")
    config = small(recipe, tmp_path, *(f"{name}.init={tmp_path / 'theirs'}" for name in encoders), *overrides)
    for text in (config.transform, *getattr(config.transform, "views", {}).values()):
        if isinstance(text, TextConfig):
            file = tmp_path / "theirs" / "tokenizer.json"
            save(learn(iter(LINES), text.kind, text.vocabulary, text.sentinels), file)
            text.tokenizer = str(file)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    parts = make_parts(config, wiring)
    initial.load(initial.read(config, wiring, transform), parts)
    return config, wiring, transform, parts.eval()


@pytest.mark.parametrize(
    ("recipe", "make"),
    [("bert", bert), ("mae_vit", vit_mae), ("t5", t5), ("wav2vec2", wav2vec2), ("simclr_resnet", resnet)],
)
@torch.no_grad()
def test_a_run_begins_with_published_weights(recipe, make, tmp_path):
    model, overrides = make()
    model = randomised(model)
    config, wiring, transform, parts = begun(recipe, model, overrides, tmp_path)
    kept = held(config, wiring, transform)
    batch, given = sample(kept, transform)
    tokens = Step(batch, parts, Rng(0, 0)).encode(kept.path)
    base = model.base_model
    if recipe == "t5":
        base = model.get_encoder()
    if recipe == "mae_vit":  # all patches, in their order
        given["noise"] = torch.arange(16).float().expand(2, -1)
        base.config.mask_ratio = 0.0
    states = base(**given).last_hidden_state
    states = states.flatten(2).transpose(1, 2) if states.dim() == 4 else states[:, tokens.prefix :]
    real = tokens.sites.real()
    assert states.abs().max() > 0.1
    torch.testing.assert_close(tokens.body[real], states[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_run_begins_with_both_towers_of_clip(tmp_path):
    """As it was published, with the activation of its own; its pooled pictures are normed where it pools them."""
    size = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = randomised(
        transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={**size, "vocab_size": 256, "max_position_embeddings": 16, "eos_token_id": 3},
                vision_config={**size, "image_size": 24, "patch_size": 6},
            )
        )
    )
    towers = ("encoder.image", "encoder.text")
    own = [f"{name}.{key}" for name in towers for key in ("width=24", "heads=3", "hidden=40", "activation=quick_gelu")]
    own += ["embedder.image.position=learned", "embedder.text.positions=16"]
    *_, wiring, transform, parts = begun("clip", model, own, tmp_path, towers)
    pictures = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8).numpy()
    words = [torch.randint(4, 256, (n,)) for n in (16, 9)]
    raw = collate([{"image": picture(pictures[i], i), "text": Example(values=words[i], sample=i)} for i in range(2)])
    step = Step(transform.finish(raw, Rng(0, 0), clean=True), parts, Rng(0, 0))
    pixels = transform.of("image").normalize(unpack(raw["image"]))
    seen = model.vision_model(pixel_values=pixels).last_hidden_state
    image, text = (step.encode(wiring.paths[name]) for name in ("main", "text"))
    torch.testing.assert_close(image.x, model.vision_model.post_layernorm(seen), atol=1e-5, rtol=1e-5)
    real = text.sites.real()
    read = model.text_model(input_ids=raw["text"].values, attention_mask=real.long()).last_hidden_state
    torch.testing.assert_close(text.x[real], read[real], atol=1e-5, rtol=1e-5)


def test_a_run_begins_where_another_ended(run_of, tmp_path):
    run = run_of("mae_vit")
    config = small("mae_vit", tmp_path, f"encoder.init={run}", "run.name=next", "optim.lr=1e-12", "probe=null", steps=1)
    train(config)
    first, second = (load(folder / "encoder").state_dict() for folder in (run, tmp_path / "mae_vit" / "next"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("encoder.heads=6", "num_attention_heads=3, here 6"),
        ("encoder.eps=1e-3", "layer_norm_eps"),
        ("transform.tokenizer=null", "this run trains another; give the file: transform.tokenizer="),
        ("encoder.init=/nowhere/at/all", "encoder.main.init='/nowhere/at/all': it cannot be read or found"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(override, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, overrides = bert()
    model.save_pretrained(tmp_path / "theirs")
    start = [f"encoder.init={tmp_path / 'theirs'}", "encoder.depth=2", *overrides]
    save(learn(iter(LINES), TokenizerKind.wordpiece, 96), tmp_path / "tokenizer.json")
    start += [f"transform.tokenizer={tmp_path}"]
    embedder = ["embedder.eps=1e-3", "head.eps=1e-3"] if "eps" in override else []
    with pytest.raises(SystemExit) as ended:
        cli.main(["+recipe=bert", *start, *embedder, override, f"run.root={tmp_path / 'runs'}"])
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
