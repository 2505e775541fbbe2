"""Molecules: valid, of the class that their label says, and spelled in many ways. Read by a parser of its own."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from encdec_train.data.sources.molecules import GROUPS, Molecules, MoleculesConfig, write
from encdec_train.data.tokenizers import SMILES
from encdec_train.types import Mismatch

SMALL = MoleculesConfig(rows=120)
VALENCE = {"C": 4, "N": 3, "O": 2, "S": 2, "F": 1, "Cl": 1, "Br": 1}

Graph = tuple[list[str], dict[int, dict[int, float]]]


def parse(text: str) -> Graph:
    """Atoms, and the orders of their bonds; one and a half between aromatic atoms."""
    atoms: list[str] = []
    bonds: dict[int, dict[int, float]] = {}
    stack: list[int] = []
    rings: dict[str, int] = {}
    at, order = -1, None
    pieces = re.findall(SMILES, text)
    assert "".join(pieces) == text

    def join(a: int, b: int) -> None:
        usual = 1.5 if atoms[a].islower() and atoms[b].islower() else 1
        bonds[a][b] = bonds[b][a] = order or usual

    for piece in pieces:
        if piece == "(":
            stack.append(at)
        elif piece == ")":
            at = stack.pop()
        elif piece in "-=#":
            order = {"-": 1, "=": 2, "#": 3}[piece]
        elif piece.isdigit():
            if piece in rings:
                join(rings.pop(piece), at)
            else:
                rings[piece] = at
        else:
            atoms.append(piece)
            bonds[len(atoms) - 1] = {}
            if at >= 0:
                join(at, len(atoms) - 1)
            at, order = len(atoms) - 1, None
    assert not stack and not rings
    return atoms, bonds


def group_of(text: str) -> list[str]:
    """The functional group at every carbon that is doubly bound to an oxygen."""
    atoms, bonds = parse(text)

    def others(a: int, *without: int) -> list[int]:
        return [b for b in bonds[a] if b not in without]

    def name(carbon: int, oxygen: int) -> str:
        rest = others(carbon, oxygen)
        second = [b for b in rest if atoms[b] == "O"]
        if second:
            far = others(second[0], carbon)
            if not far:
                return "acid"
            if len(rest) == 1:
                return "formate"
            return "methyl_ester" if atoms[far[0]] == "C" and len(bonds[far[0]]) == 1 else "acetate"
        return "hydroxyaldehyde" if len(rest) == 1 else "hydroxyketone"

    return [name(c, o) for c in bonds if atoms[c] == "C" for o in bonds[c] if atoms[o] == "O" and bonds[c][o] == 2]


def invariant(graph: Graph) -> Counter[str]:
    """The same for every spelling: what each atom sees of its neighbours, four bonds far."""
    atoms, bonds = graph
    seen = [str(atom) for atom in atoms]
    for _ in range(4):
        seen = [f"{seen[a]}{sorted((seen[b], order) for b, order in bonds[a].items())}" for a in bonds]
    return Counter(str(hash(view)) for view in seen)


def test_rows_are_the_same_every_time_and_differ_between_splits() -> None:
    first, again = Molecules(SMALL)("train"), Molecules(SMALL)("train")
    assert len(first) == 120 and first[:] == again[:]
    assert len(Molecules(SMALL)("test")) == 20
    assert Molecules(SMALL)("test")[0]["text"] != first[0]["text"]


def test_the_label_is_the_functional_group() -> None:
    rows = Molecules(SMALL)("train")
    names = rows.features["label"].names
    assert names == [group.name for group in GROUPS]
    assert set(Counter(rows["label"]).values()) == {20}
    for row in rows:
        assert group_of(row["text"]) == [names[row["label"]]] * SMALL.copies, row["text"]


def test_no_atom_has_too_many_bonds() -> None:
    for row in Molecules(SMALL)("train"):
        atoms, bonds = parse(row["text"])
        for atom, others in bonds.items():
            assert sum(others.values()) <= VALENCE[atoms[atom].capitalize()] + (atoms[atom] == "s"), row["text"]


def test_classes_are_isomers() -> None:
    """The same atoms and the same bonds in every group, so that only their order differs."""
    assert len({tuple(sorted(group.atoms)) for group in GROUPS}) == 1
    assert len({tuple(sorted(order for *_, order in group.bonds)) for group in GROUPS}) == 1


def test_every_spelling_is_the_same_molecule() -> None:
    source = Molecules(SMALL)
    for i in range(6):
        molecule = source.grow(GROUPS[i], Random(i))
        texts = {write(molecule, Random(seed)) for seed in range(8)}
        assert len(texts) > 3
        assert len({tuple(sorted(invariant(parse(text)).items())) for text in texts}) == 1


@pytest.mark.parametrize(
    "settings,said", [({"rows": 0}, "rows: 0"), ({"copies": 5}, "5 groups"), ({"ends": -1}, "ends: -1")]
)
def test_ranges(settings: dict[str, int], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        Molecules(MoleculesConfig(**settings))
