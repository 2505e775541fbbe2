"""What exists: the help text, every recipe, registered part and word, found without importing any of them.

Parts are found by reading the source for `@encoders.register("name", ...)`, so that a listing needs neither
torch nor Hydra, and a part is listed as soon as it is registered.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from encdec_train import registry, results
from encdec_train.paths import CONFIGS, PACKAGE, recipe_folders
from encdec_train.registry import PACKAGES, Registry, did_you_mean

HELP = """\
encdec-train: pretrain encoders and encoder-decoders. A method is a YAML sentence over registered parts.

Commands
  encdec-train +recipe=NAME [key=value ...]   train; ends with a table of probes, and a run directory
  encdec-train -m +recipe=A,B seed=0,1        train every combination, one after the other
  encdec-train list [recipes|encoders|...]    what exists, one line each                          [--json]
  encdec-train show +recipe=NAME [...]        parts, shapes, parameters, data; no training        [--json]
  encdec-train preview +recipe=NAME [...]     what step 0 sees, and what the data cost      [--out DIR]
  encdec-train resume RUN [trainer.devices=N] continue exactly where a run stopped
  encdec-train replay RUN STEP                compute one step of a run again
  encdec-train probe RUN [probe=NAME]         evaluate a finished run
  encdec-train generate RUN "TEXT"            what the model writes       [--beam N | --sample ...]
  encdec-train verify RUN                     met, below or not comparable with what the recipe promises
  encdec-train report RUN                     write the run's report.html again
  encdec-train export RUN --to hf DIR         for transformers, timm or as safetensors; outputs are compared
  encdec-train runs                           the runs on this disk; --best knn, --diff A B, --compare A B ...
  encdec-train doctor                         what this machine has, what falls back, what is wrong   [--json]

Scales
  scale=demo    (default) tiny parts, data that ships with the package, about a minute on two CPU cores
  scale=rung    a small public data set: minutes on two CPU cores, or at most an hour on one GPU
  scale=paper   the published model, data and schedule

Overrides
  encoder=vit_base          choose another word, or another registered part, for a noun
  encoder.depth=6           set a field; short for encoder.main.depth=6
  data.path=PATH            your own data: a folder of pictures or sounds, parquet, arrow, csv, json or text
                            files, or the name of a hub data set; data=images, texts or sounds if the recipe's
                            data is of another shape
  stage.main.steps=1000     how long; trainer.max_steps=5 caps every stage
  encoder.init=PATH_OR_NAME begin with weights of BERT, T5, ViT, MAE, wav2vec 2.0, ResNet, or of a run
  init=RUN                  begin with the tokenizers and all same-named parts of another run
  budget=20m                time for training: the schedule ends when it does
  optim.lr=1e-3  seed=1  loader.batch=64  loader.workers=4
  logger=[tensorboard,wandb]  also log there (off unless asked for)

Options
  --help, -h    this text                     --info defaults   where every value comes from (Hydra)
  --debug       the traceback of an error     --cfg job         the composed configuration (Hydra)

Examples
  encdec-train +recipe=mae_vit
  encdec-train +recipe=mae_vit scale=rung data.path=photos/ data.size=64
  encdec-train +recipe=bert data=texts data.path=notes/ seed=1
  encdec-train list encoders
"""
PLURALS = {"data": "data", "loss": "losses", "optim": "optimizers"}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(kw_only=True)
class Entry:
    """One line of the listing."""

    noun: str  # recipe, or the singular noun: encoder, loss
    name: str
    kind: str  # recipe, part (registered) or word (a YAML that sets a part's sizes)
    summary: str  # one line
    file: str  # where it is written
    paper: dict[str, Any] = field(default_factory=dict)  # of a recipe: title, arxiv, metric, value, ...
    rung: dict[str, Any] = field(default_factory=dict)  # of a recipe: what it promises of a small run
    measured: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of a recipe: by scale, from results/


def help_text() -> str:
    """What `encdec-train --help` prints."""
    return HELP.rstrip()


def list_command(arguments: Sequence[str]) -> int:
    """`encdec-train list [NOUN ...] [--json]`.

    Raises:
        ValueError: an unknown noun or option.
    """
    wanted = [argument for argument in arguments if argument != "--json"]
    strange = [argument for argument in wanted if argument.startswith("-")]
    if strange:
        raise ValueError(f"list: unknown option '{strange[0]}'; allowed is --json")
    entries = [entry for noun in wanted for entry in find(noun)] if wanted else find()
    print(as_json(entries) if "--json" in arguments else as_text(entries))
    return 0


def nouns() -> dict[str, str]:
    """Plural -> singular, recipes first; groups of words without registered parts are nouns too."""
    groups = sorted(p.name for p in CONFIGS.iterdir() if p.is_dir()) if CONFIGS.is_dir() else []
    singular = ["recipe", *Registry.all, *(group for group in groups if group not in Registry.all)]
    return {PLURALS.get(noun, f"{noun}s"): noun for noun in singular}


def find(noun: str | None = None) -> list[Entry]:
    """Everything, or what there is of one noun, in singular or plural.

    Raises:
        ValueError: there is no such noun.
    """
    known = nouns()
    if noun is not None:
        chosen = known.get(noun, noun)
        if chosen not in known.values():
            allowed = ", ".join(known)
            raise ValueError(f"list: there is no noun '{noun}'{did_you_mean(noun, known)}; there are {allowed}")
        known = {noun: chosen}
    found: list[Entry] = []
    parts = _parts() if set(known.values()) - {"recipe"} else []
    for singular in known.values():
        if singular == "recipe":
            found += _recipes()
            continue
        mine = [part for part in parts if part.noun == singular] + list(_words(singular))
        found += sorted(mine, key=lambda entry: (entry.kind, entry.name))
    return found


def as_json(entries: list[Entry]) -> str:
    """A list of objects; what is empty is left out."""
    return json.dumps([{k: v for k, v in asdict(entry).items() if v} for entry in entries], indent=1, default=str)


def as_text(entries: list[Entry], width: int | None = None) -> str:
    """A heading per noun and a line per entry.

    Args:
        entries: as `find` gives them.
        width: columns that a line may take; none: those of the terminal, no limit where there is none.
    """
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    plural = {singular: many for many, singular in nouns().items()}
    lines: list[str] = []
    for noun, group in groupby(entries, key=lambda entry: entry.noun):
        lines += ["", plural.get(noun, noun), *_columns([_cells(entry) for entry in group])]
    return "\n".join(_cut(line, width) for line in lines[1:])


def _cells(entry: Entry) -> list[str]:
    """Name and summary; of a recipe also its paper, what that reports, what was measured or else promised."""
    if entry.noun != "recipe":
        return [entry.name, entry.summary]
    arxiv = entry.paper.get("arxiv")
    return [
        entry.name,
        f"arXiv:{arxiv}" if arxiv else "",
        _claim(entry.paper),
        "" if "rung" in entry.measured else _claim(entry.rung),
        _measured(entry.measured),
        entry.summary,
    ]


def _claim(claim: dict[str, Any]) -> str:
    return f"{claim.get('metric', '')} {claim['value']}".strip() if "value" in claim else ""


def _measured(scales: dict[str, list[dict[str, Any]]]) -> str:
    """`demo: knn 0.871, linear 0.940`."""
    said = (
        f"{scale}: " + ", ".join(f"{c['metric']} {c['value']:.3f}" for c in found) for scale, found in scales.items()
    )
    return "; ".join(said)


def _columns(rows: list[list[str]]) -> list[str]:
    """Aligned; a column that is empty throughout is left out."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True) if n).rstrip() for row in rows]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def _recipes() -> list[Entry]:
    found: dict[str, Entry] = {}
    for folder in recipe_folders():
        for file in sorted(folder.glob("**/*.yaml")) if folder.is_dir() else []:
            name = file.relative_to(folder).with_suffix("").as_posix()
            found.setdefault(name, _recipe(name, file))  # the first folder wins, as for Hydra
    return [found[name] for name in sorted(found)]


def _recipe(name: str, file: Path) -> Entry:
    text = file.read_text(encoding="utf-8")
    entry = Entry(noun="recipe", name=name, kind="recipe", summary=_comment(text), file=str(file))
    try:
        content = yaml.load(text, Loader=_Loader) or {}
    except yaml.YAMLError as error:  # one broken file of a user must not hide all others
        mark = getattr(error, "problem_mark", None)
        entry.summary = f"cannot be read as YAML{f', line {mark.line + 1}' if mark else ''}: {file}"
        return entry
    for key in ("paper", "rung"):
        claim = content.get(key) if isinstance(content, dict) else None
        if isinstance(claim, dict):
            setattr(entry, key, {k: v for k, v in claim.items() if v is not None})
    for scale in ("demo", "rung"):
        found = results.entry(name, scale)
        if found is not None:
            entry.measured[scale] = [asdict(claim) for claim in results.claims(found)]
    entry.summary = entry.summary or str(entry.paper.get("title") or "")
    return entry


def _words(noun: str) -> Iterator[Entry]:
    for file in sorted((CONFIGS / noun).glob("*.yaml")):
        summary = _comment(file.read_text(encoding="utf-8"))
        yield Entry(noun=noun, name=file.stem, kind="word", summary=summary, file=str(file))


def _comment(text: str) -> str:
    """The first comment line that is not Hydra's header."""
    for line in text.splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
        if line.strip() and not line.startswith("#"):
            break
    return ""


def _parts() -> list[Entry]:
    """Every class below a `@<registry>.register("name", ...)`."""
    names = {name: value.noun for name, value in vars(registry).items() if isinstance(value, Registry)}
    found: list[Entry] = []
    for package in PACKAGES:
        for file in sorted((PACKAGE / package.replace(".", "/")).glob("*.py")):
            text = file.read_text(encoding="utf-8")
            if ".register(" in text:
                found += _registered(ast.parse(text), file, names)
    return found


def _registered(module: ast.Module, file: Path, names: dict[str, str]) -> list[Entry]:
    """The entries of one module. A module with one part describes it by its own docstring."""
    pairs = [
        (names[call.func.value.id], str(call.args[0].value), node)
        for node in module.body
        if isinstance(node, ast.ClassDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in names
        and call.args
        and isinstance(call.args[0], ast.Constant)
    ]
    own = _first_line(ast.get_docstring(module)) if len(pairs) == 1 else ""
    return [
        Entry(
            noun=noun,
            name=name,
            kind="part",
            summary=own or _first_line(ast.get_docstring(node)),
            file=str(file),
        )
        for noun, name, node in pairs
    ]


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n", 1)[0]
