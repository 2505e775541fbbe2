"""Serve the top-level `recipes/` folders to Hydra as the config group `recipe`.

A folder called `recipes` would be the group `recipes`; this source lets people say `+recipe=name` and works from a
checkout, from a wheel and for the user's own folder.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from encdec_train.paths import recipe_folders


class RecipeSource(ConfigSource):
    """`recipes://<folder>`: `recipe/name` is the file `<folder>/name.yaml`."""

    @staticmethod
    def scheme() -> str:
        return "recipes"

    def _locate(self, config_path: str) -> Path | None:
        group, _, name = config_path.partition("/")
        return Path(self.path, name) if group == "recipe" else None

    def load_config(self, config_path: str) -> ConfigResult:
        path = self._locate(self._normalize_file_name(config_path))
        if path is None or not path.is_file():
            raise ConfigLoadError(f"no recipe at {path}")
        text = path.read_text(encoding="utf-8")
        return ConfigResult(
            provider=self.provider,
            path=f"recipes://{self.path}",
            config=OmegaConf.create(text),
            header=self._get_header_dict(text),
        )

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        path = self._locate(config_path)
        return config_path == "" or (path is not None and path.is_dir())

    def is_config(self, config_path: str) -> bool:
        path = self._locate(self._normalize_file_name(config_path))
        return path is not None and path.is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [] if results_filter is ObjectType.CONFIG else ["recipe"]
        names: list[str] = []
        folder = self._locate(config_path)
        for path in sorted(folder.iterdir() if folder else []):
            self._list_add_result(names, f"{config_path}/{path.name}", path.name, results_filter)
        return sorted(set(names))


class RecipeSearchPath(SearchPathPlugin):
    """Appends the recipe folders; Hydra takes the first match."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in recipe_folders():
            search_path.append("encdec-train", f"recipes://{folder}")


def install() -> None:
    """Make the group `recipe` known to Hydra. Before `hydra.main` or `compose`."""
    Plugins.instance().register(RecipeSource)
    Plugins.instance().register(RecipeSearchPath)
