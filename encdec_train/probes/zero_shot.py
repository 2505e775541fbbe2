"""Classes told by their names: a row belongs to the class whose sentence is the most similar.

Radford et al. 2021 (CLIP, arXiv:2103.00020), section 3.1: a class's vector is the mean over its prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.probes.probe import Measured, ProbeConfig
from encdec_train.registry import probes
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class ZeroShotConfig(ProbeConfig):
    objective: str = "main"  # one that compares rows with sentences: one side is the probe's path, the other reads text
    prompts: list[str] = field(default_factory=lambda: ["a {}"])  # {}: the class's name
    names: list[str] = field(default_factory=list)  # of the classes; empty: as the data have them


@probes.register("zero_shot", ZeroShotConfig)
class ZeroShot:
    """Accuracy on the test split, without any training row."""

    metric = "accuracy"
    labelled = True

    def __init__(self, config: ZeroShotConfig) -> None:
        self.config = config
        lacking = [prompt for prompt in config.prompts if "{}" not in prompt]
        if lacking or not config.prompts:
            raise Mismatch(f"probe 'zero_shot'.prompts: {lacking or 'none'} without {{}} for the class's name")

    @property
    def protocol(self) -> str:
        said = ", ".join(f'"{prompt}"' for prompt in self.config.prompts)
        return f"cosine with the classes' names as {said}, objective '{self.config.objective}'"

    @torch.no_grad()
    def __call__(self, frozen: Any) -> Measured:
        (rows, row_heads), (text, text_heads) = self.sides(frozen)
        part = frozen.parts.get("objective", self.config.objective)
        names = self.names(frozen)
        said = [prompt.replace("{}", name.replace("_", " ")) for name in names for prompt in self.config.prompts]
        found = [part.vectors(step, [text], text_heads)[0].float() for step in frozen.given(text.view, said)]
        classes = F.normalize(torch.cat(found), dim=-1).unflatten(0, (len(names), -1)).mean(1)
        scores, answers = [], []
        for step, batch in frozen.steps("test"):
            vectors = part.vectors(step, [rows], row_heads)[0].float()
            scores.append(F.normalize(vectors, dim=-1) @ F.normalize(classes, dim=-1).T)
            answers.append(batch["label"].values[:, 0].long())
        return Measured(accuracy(torch.cat(scores), torch.cat(answers)), {"classes": len(names)})

    def sides(self, frozen: Any) -> tuple[tuple[Any, list[str]], tuple[Any, list[str]]]:
        """The path of the rows with its heads, and that of the sentences.

        Raises:
            Mismatch: the objective has no such sides.
        """
        config = frozen.config.objective.get(self.config.objective)
        if config is None or not getattr(config, "right", None):
            raise Mismatch(f"probe 'zero_shot': there is no objective '{self.config.objective}' with two sides")
        heads = config.left_heads if config.right_heads is None else config.right_heads
        found = [(frozen.paths[config.left[0]], config.left_heads), (frozen.paths[config.right[0]], heads)]
        found.sort(key=lambda side: side[0].view != frozen.path.view)
        text = frozen.wiring.views[found[1][0].view]
        if found[0][0].view != frozen.path.view or text.vocabulary is None:
            raise Mismatch(f"probe 'zero_shot': objective '{self.config.objective}' compares no rows with sentences")
        return found[0], found[1]

    def names(self, frozen: Any) -> list[str]:
        """Of the classes, in the order of their numbers."""
        if self.config.names:
            return self.config.names
        known = getattr(frozen.rows["test"].features[frozen.labels[0]], "names", None)
        if known is None:
            raise Mismatch("probe 'zero_shot'.names: the data number the classes and do not name them")
        return list(known)


def accuracy(scores: Tensor, answers: Tensor) -> float:
    """Of scores (n,C) for classes (n,)."""
    return float((scores.argmax(1) == answers).double().mean())
