"""Molecules as SMILES, out of the box: a grown skeleton with copies of one functional group, which is the label.

The groups are isomers: two carbons, two oxygens and one double bond each, in another order. So the atoms of a molecule
do not tell its class, their bonds do. A molecule is written from a random atom and with branches in a random order, so
that it has many spellings (Weininger 1988, "SMILES, a chemical language and information system").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from encdec_train.data.config import DataConfig
from encdec_train.registry import sources
from encdec_train.rng import key_of
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Fragment:
    """Atoms, the bonds between them by number and order, and the free bonds of each atom."""

    name: str
    atoms: tuple[str, ...]  # small letters are aromatic
    bonds: tuple[tuple[int, int, int], ...]
    free: tuple[int, ...]


def _ring(name: str, atoms: str, free: tuple[int, ...]) -> Fragment:
    size = len(atoms)
    return Fragment(name, tuple(atoms), tuple((i, (i + 1) % size, 1) for i in range(size)), free)


# All C2H3O2, hung on by their first atom.
GROUPS = (
    Fragment("acid", ("C", "C", "O", "O"), ((0, 1, 1), (1, 2, 2), (1, 3, 1)), (1, 0, 0, 0)),  # CC(=O)O
    Fragment("methyl_ester", ("C", "O", "O", "C"), ((0, 1, 2), (0, 2, 1), (2, 3, 1)), (1, 0, 0, 0)),  # C(=O)OC
    Fragment("acetate", ("O", "C", "O", "C"), ((0, 1, 1), (1, 2, 2), (1, 3, 1)), (1, 0, 0, 0)),  # OC(=O)C
    Fragment("formate", ("C", "O", "C", "O"), ((0, 1, 1), (1, 2, 1), (2, 3, 2)), (1, 0, 0, 0)),  # COC=O
    Fragment("hydroxyketone", ("C", "O", "C", "O"), ((0, 1, 2), (0, 2, 1), (2, 3, 1)), (1, 0, 0, 0)),  # C(=O)CO
    Fragment("hydroxyaldehyde", ("C", "O", "C", "O"), ((0, 1, 1), (0, 2, 1), (2, 3, 2)), (1, 0, 0, 0)),  # C(O)C=O
)
PIECES = (
    _ring("benzene", "cccccc", (1, 1, 1, 1, 1, 1)),
    _ring("pyridine", "nccccc", (0, 1, 1, 1, 1, 1)),
    _ring("thiophene", "scccc", (0, 1, 1, 1, 1)),
    _ring("cyclohexane", "CCCCCC", (1, 1, 1, 1, 1, 1)),
    _ring("piperidine", "NCCCCC", (1, 1, 1, 1, 1, 1)),
    Fragment("butane", ("C", "C", "C", "C"), ((0, 1, 1), (1, 2, 1), (2, 3, 1)), (2, 1, 1, 2)),
)
ENDS = (
    *(Fragment(atom, (atom,), (), (1,)) for atom in ("C", "F", "Cl", "Br", "N", "O")),
    Fragment("nitrile", ("C", "N"), ((0, 1, 3),), (1, 0)),
)
_BONDS = {1: "", 2: "=", 3: "#"}


@dataclass
class Molecule:
    """A graph of atoms."""

    atoms: list[str] = field(default_factory=list)
    bonds: dict[int, dict[int, int]] = field(default_factory=dict)  # atom -> neighbour -> order
    free: list[int] = field(default_factory=list)
    joints: set[frozenset[int]] = field(default_factory=set)  # bonds between fragments

    def add(self, fragment: Fragment) -> int:
        """The number of its first atom."""
        first = len(self.atoms)
        self.atoms += fragment.atoms
        self.free += fragment.free
        self.bonds.update({first + i: {} for i in range(len(fragment.atoms))})
        for a, b, order in fragment.bonds:
            self.bonds[first + a][first + b] = self.bonds[first + b][first + a] = order
        return first

    def join(self, a: int, b: int) -> None:
        """A single bond, for a free one of each."""
        self.bonds[a][b] = self.bonds[b][a] = 1
        self.free[a] -= 1
        self.free[b] -= 1
        self.joints.add(frozenset((a, b)))

    def carbons(self, atoms: range) -> list[int]:
        """Those with a free bond."""
        return [i for i in atoms if self.free[i] and self.atoms[i] in "Cc"]


@dataclass(kw_only=True)
class MoleculesConfig(DataConfig):
    column: str | None = "text"
    rows: int = 6000  # molecules of the training split; the test split has a sixth
    copies: int = 2  # of the functional group, at most 4
    pieces: int = 2  # rings and chains of the skeleton, at most
    ends: int = 3  # other substituents, at most

    def check(self) -> None:
        for name in ("rows", "copies", "pieces"):
            if getattr(self, name) < 1:
                raise Mismatch(f"data 'molecules'.{name}: {getattr(self, name)} is below 1")
        if self.copies > 4:
            raise Mismatch(f"data 'molecules'.copies: {self.copies} groups do not fit on every ring, 4 do")
        if self.ends < 0:
            raise Mismatch(f"data 'molecules'.ends: {self.ends} is below 0")


@sources.register("molecules", MoleculesConfig)
class Molecules:
    """Rows of `text` (a SMILES string) and `label` (its functional group)."""

    def __init__(self, config: MoleculesConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import ClassLabel, Dataset, Features, Value

        count = self.config.rows if split == self.config.train else max(1, self.config.rows // 6)
        features = Features(text=Value("string"), label=ClassLabel(names=[group.name for group in GROUPS]))
        return Dataset.from_list([self.row(split, i) for i in range(count)], features=features)

    def row(self, split: str, index: int) -> dict[str, Any]:
        """One molecule; classes take turns, so that every split is balanced."""
        random = Random(key_of("molecules", split, index))
        label = index % len(GROUPS)
        return {"text": write(self.grow(GROUPS[label], random), random), "label": label}

    def grow(self, group: Fragment, random: Random) -> Molecule:
        """Skeleton, then the groups on its carbons, then ends where there is room."""
        molecule = Molecule()
        for _ in range(random.randint(1, self.config.pieces)):
            first = molecule.add(random.choice(PIECES))
            if first:
                old = random.choice(molecule.carbons(range(first)))
                molecule.join(old, random.choice(molecule.carbons(range(first, len(molecule.atoms)))))
        skeleton = range(len(molecule.atoms))
        hung = [group] * self.config.copies
        hung += random.choices(ENDS, k=random.randint(0, self.config.ends))
        for fragment in hung:
            places = molecule.carbons(skeleton)
            if places:
                molecule.join(random.choice(places), molecule.add(fragment))
        return molecule


def write(molecule: Molecule, random: Random) -> str:
    """One of its SMILES: a walk from a random atom, branches in brackets, rings closed by numbers."""
    tree, rings = _walk(molecule, random)
    numbers: dict[frozenset[int], int] = {}  # of rings that are open

    def bond(a: int, b: int) -> str:
        aromatic = molecule.atoms[a].islower() and molecule.atoms[b].islower()
        return "-" if aromatic and frozenset((a, b)) in molecule.joints else _BONDS[molecule.bonds[a][b]]

    def spell(atom: int, below: int | None) -> str:
        text = "" if below is None else bond(below, atom)
        text += molecule.atoms[atom]
        for ring in rings[atom]:
            if ring in numbers:
                text += str(numbers.pop(ring))
            else:
                numbers[ring] = next(n for n in range(1, 10) if n not in numbers.values())
                text += str(numbers[ring])
        branches = [spell(child, atom) for child in tree[atom]]
        return text + "".join(f"({branch})" for branch in branches[:-1]) + "".join(branches[-1:])

    return spell(next(iter(tree)), None)


def _walk(molecule: Molecule, random: Random) -> tuple[dict[int, list[int]], dict[int, list[frozenset[int]]]]:
    """Depth first: the children of each atom in the order of the walk, and the bonds that close rings at each."""
    tree: dict[int, list[int]] = {}
    rings: dict[int, list[frozenset[int]]] = {atom: [] for atom in molecule.bonds}

    def visit(atom: int, below: int | None) -> None:
        tree[atom] = []
        others = [other for other in molecule.bonds[atom] if other != below]
        random.shuffle(others)
        for other in others:
            if other not in tree:
                tree[atom].append(other)
                visit(other, atom)
            elif frozenset((atom, other)) not in rings[atom]:
                for end in (atom, other):
                    rings[end].append(frozenset((atom, other)))

    visit(random.randrange(len(molecule.atoms)), None)
    return tree, rings
