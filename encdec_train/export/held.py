"""The parts of a run's evaluated path as another library may hold them, under the names `noun.main`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from encdec_train.build import Wiring
from encdec_train.config import TrainConfig
from encdec_train.data.transform import Transform
from encdec_train.decoders.seq2seq import Seq2SeqConfig
from encdec_train.export.hf.families import Ours
from encdec_train.heads.linear import LinearHeadConfig
from encdec_train.heads.tied import TiedConfig
from encdec_train.objectives.predict import PredictConfig
from encdec_train.step import Parts
from encdec_train.types import Path


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is handed over of a run. A decoder that fills masks is for pretraining only and has no place here."""

    ours: Ours
    path: Path  # clean: without corruption and bottleneck
    names: dict[str, str]  # of the parts, by noun
    objective: str | None  # that scores ids with them; none: there is none

    def state(self, parts: Parts) -> dict[str, Tensor]:
        """Weights under `noun.main`; a mask vector that no id stands for goes along."""
        found: dict[str, Tensor] = {}
        for noun, name in self.names.items():
            part = parts.get(noun, name, self.path.teacher)
            found.update({f"{noun}.main.{key}": value.detach().cpu() for key, value in part.state_dict().items()})
        return found


def held(config: TrainConfig, wiring: Wiring, transform: Transform) -> Held:
    """The evaluated path's embedder and encoder, and what scores ids from there."""
    path = wiring.paths[config.evaluate.path]
    view = wiring.views[path.view]
    names = {"embedder": path.embedder, **({"encoder": path.encoder} if path.encoder else {})}
    objective = _scores(config, wiring, path) if view.kind == "ids" else None
    decoder = head = None
    if objective is not None:
        chosen: Any = config.objective[objective]
        names["head"], head = chosen.head, config.head[chosen.head]
        if chosen.decoder is not None:
            names["decoder"], decoder = chosen.decoder, config.decoder[chosen.decoder]
    return Held(
        ours=Ours(
            view=view,
            embedder=config.embedder[path.embedder],
            encoder=config.encoder[path.encoder] if path.encoder else None,
            decoder=decoder,
            head=head,
            data=transform.of(path.view).data,
        ),
        path=replace(path, corruption=None, reply=False, bottleneck=None),
        names=names,
        objective=objective,
    )


def _scores(config: TrainConfig, wiring: Wiring, path: Path) -> str | None:
    """The objective that reads this embedder and encoder and scores ids: a masked language model, or a sequence one."""
    for name, objective in config.objective.items():
        if not isinstance(objective, PredictConfig) or objective.memory is None:
            continue
        memory = wiring.paths[objective.memory]
        if (memory.view, memory.embedder, memory.encoder) != (path.view, path.embedder, path.encoder):
            continue
        head = config.head.get(objective.head)
        decoder = None if objective.decoder is None else config.decoder[objective.decoder]
        masked = decoder is None and isinstance(head, TiedConfig) and head.transform
        written = isinstance(decoder, Seq2SeqConfig) and isinstance(head, TiedConfig | LinearHeadConfig)
        if masked or written:
            return name
    return None
