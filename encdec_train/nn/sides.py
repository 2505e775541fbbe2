"""What all losses between two sides of an objective `agree` have in common."""

from __future__ import annotations

from encdec_train.types import Mismatch, Spec


def check_sides(loss: str, prediction: Spec, goal: Spec | None) -> None:
    """They compare vectors of a batch with each other.

    Raises:
        Mismatch: what is given is no vector, or is to be held against a target.
    """
    if goal is not None:
        raise Mismatch(f"loss '{loss}' compares the two sides of an objective 'agree', it takes no target")
    if prediction.kind != "vectors":
        raise Mismatch(f"loss '{loss}' compares vectors, the head gives {prediction.kind}")
