"""The listing agrees with the registry, and costs less than importing torch."""

import ast
import json
import subprocess
import sys

import pytest

from encdec_train import catalogue, paths
from encdec_train.cli import COMMANDS
from encdec_train.registry import Registry, discover


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A user's own folder of recipes in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "# @package _global_\n# My method.\n# More.\ndefaults:\n  - override /data: ${at:digits,cifar10}\n"
        "paper: {title: T, metric: top-1, value: 83.6, table: null}\nrung: {metric: knn, value: 0.5}\n"
    )
    (tmp_path / "recipes" / "broken.yaml").write_text("a: [1\nb: 2\n")
    return {entry.name: entry for entry in catalogue.find("recipes")}


def test_every_registered_part_is_found_by_reading_alone():
    discover()
    registered = {(noun, name) for noun, known in Registry.all.items() for name in known.parts}
    found = {(entry.noun, entry.name) for entry in catalogue.find() if entry.kind == "part"}
    assert found == registered
    assert not [entry.name for entry in catalogue.find() if entry.kind != "recipe" and not entry.summary]


def test_a_recipe_shows_its_comment_and_its_numbers(recipes):
    mine = recipes["mine"]
    assert mine.summary == "My method."
    assert mine.paper == {"title": "T", "metric": "top-1", "value": 83.6}
    line = catalogue.as_text([mine]).splitlines()[1]
    assert line.split("  ") == ["", "mine", "top-1 83.6", "knn 0.5", "My method."]


def test_a_broken_recipe_is_listed_as_such(recipes):
    assert "cannot be read as YAML, line 2" in recipes["broken"].summary


def test_a_user_recipe_wins_over_one_of_the_same_name(recipes, tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "mine.yaml").write_text("# Theirs.\n")
    monkeypatch.setattr(paths, "RECIPES", theirs)
    assert [entry.summary for entry in catalogue.find("recipe") if entry.name == "mine"] == ["My method."]


def test_unknown_noun():
    with pytest.raises(ValueError, match=r"no noun 'encoderz' \(did you mean 'encoders'\?\); there are recipes"):
        catalogue.find("encoderz")


def test_singular_and_plural_are_the_same():
    assert catalogue.find("loss") == catalogue.find("losses") != []


def test_json_is_the_same_content():
    entries = catalogue.find("losses")
    assert [item["name"] for item in json.loads(catalogue.as_json(entries))] == [e.name for e in entries]


def test_lines_fit():
    assert max(len(line) for line in catalogue.as_text(catalogue.find(), width=60).splitlines()) <= 60


def test_registry_calls_in_other_forms_are_left_alone(tmp_path):
    source = '"""Doc."""\n@thing.register("x", C)\nclass A: ...\n@plain\nclass B: ...\ndef f(): ...\n'
    assert catalogue._registered(ast.parse(source), tmp_path, {"losses": "loss"}) == []
    found = catalogue._registered(ast.parse(source), tmp_path, {"thing": "loss"})
    assert [(entry.name, entry.summary) for entry in found] == [("x", "Doc.")]


def test_two_parts_in_a_module_have_their_own_lines(tmp_path):
    source = '"""Doc."""\n' + "".join(f'@t.register("{n}", {n})\nclass {n}:\n  """Is {n}."""\n' for n in "ab")
    found = catalogue._registered(ast.parse(source), tmp_path, {"t": "loss"})
    assert [entry.summary for entry in found] == ["Is a.", "Is b."]


def test_neither_torch_nor_hydra_is_imported():
    code = (
        "import sys\nfrom encdec_train import catalogue\n"
        "catalogue.as_text(catalogue.find()); print(catalogue.help_text())\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'datasets', 'rich', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 60


def test_help_names_every_command_and_fits_a_terminal():
    for command in ("+recipe=", "-m", "--debug", *(name for name in COMMANDS if name != "train")):
        assert command in catalogue.help_text()
    assert max(map(len, catalogue.help_text().splitlines())) <= 110


def test_the_command_prints_text_or_json(capsys):
    assert catalogue.list_command(["losses", "encoders"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "losses" and "\nencoders\n" in text
    assert catalogue.list_command(["--json", "loss"]) == 0
    assert {item["noun"] for item in json.loads(capsys.readouterr().out)} == {"loss"}
    with pytest.raises(ValueError, match="unknown option '--jsn'"):
        catalogue.list_command(["--jsn"])
