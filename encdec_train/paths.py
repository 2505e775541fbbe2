"""Where the words, the sentences and their results lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE / "_yaml" if (PACKAGE / "_yaml").is_dir() else PACKAGE.parent
CONFIGS = ROOT / "configs"  # words: one folder per noun
RECIPES = ROOT / "recipes"  # sentences
RESULTS = ROOT / "results"  # what was measured, by recipe


def recipe_folders() -> list[Path]:
    """Where recipes are looked up, the user's own first: `recipes/` in the working directory."""
    mine = Path.cwd() / "recipes"
    return [RECIPES] if mine.resolve() == RECIPES else [mine, RECIPES]
