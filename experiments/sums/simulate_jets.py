"""Simulate images of single jets of five kinds at the Large Hadron Collider: cells of transverse momentum.

Proton collisions at 13 TeV by PYTHIA 8.3 with its default tune, underlying event included; jets by FastJet, trimmed. No
detector, no pile-up. Images like those of Cogan et al. (2015), arXiv:1407.5675, and de Oliveira et al. (2016),
arXiv:1511.05190, but centred otherwise, and turned before cells are filled. A cell holds a sum, so images may be added.
Both programs need an environment of their own:

    python -m venv /tmp/jets && /tmp/jets/bin/pip install pythia8mc==8.317.2 fastjet==3.5.2.0 numpy==2.4.6
    /tmp/jets/bin/python -m experiments.sums.simulate_jets
"""

import sys
from importlib.metadata import version
from pathlib import Path

import fastjet
import numpy as np
import pythia8mc

from experiments import RESULTS

PATH = RESULTS / "17_jets.npz"
SEED = 2104
COUNT = 600  # jets of each kind
ENERGY = 13_000  # GeV, of the two protons together
RADIUS = 1.0  # of anti-kT jets, and farthest from the axis that a quark of a decay may be
MATCH = 0.5  # largest distance of the jet's axis from what the jet is named after
PT, ETA = (500.0, 600.0), 2.5  # GeV, of the leading jet before trimming; its largest pseudorapidity
SUBJET, FRACTION = 0.3, 0.05  # trimming keeps kT subjets of this radius with this part of the transverse momentum
PT_HARD = (400.0, 800.0)  # GeV, window of the hard process
SIDE, CELL = 17, 0.1  # cells along one side; width of a cell in pseudorapidity and in azimuth
UNSEEN = {12, 13, 14, 16}  # muons and neutrinos
KINDS = {  # codes of the particles that give the jet, and settings of PYTHIA
    "light quark": ({1, 2, 3}, ["HardQCD:qq2qq = on"]),
    "gluon": ({21}, ["HardQCD:gg2gg = on"]),
    "W boson": ({24}, ["WeakDoubleBoson:ffbar2ZW = on", "24:onIfAny = 1 2 3 4 5", "23:onIfAny = 12 14 16"]),
    "Higgs boson": ({25}, ["HiggsSM:ffbar2HZ = on", "25:onIfAny = 5", "23:onIfAny = 12 14 16"]),
    "top quark": ({6}, ["Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onIfAny = 1 2 3 4 5"]),
}


def simulate(path: Path = PATH, seed: int = SEED) -> None:
    """Simulate COUNT jets of each kind and write their images, shuffled, each of unit norm."""
    rows = []
    for label, (codes, settings) in enumerate(KINDS.values()):
        pythia = start(settings, seed + label)
        found = 0
        while found < COUNT:
            jet = leading_jet(pythia.event, codes) if pythia.next() else None
            if jet is not None:
                image, (x, y, z, energy) = draw(jet), jet.sum(axis=0)
                mass = (energy**2 - x**2 - y**2 - z**2) ** 0.5
                rows.append((image / np.linalg.norm(image), label, mass, np.hypot(x, y)))
                found += 1
    order = np.random.default_rng(seed).permutation(len(rows))
    singles, labels, mass, pt = (np.array(column)[order] for column in zip(*rows, strict=True))
    np.savez_compressed(
        path,
        singles=singles.astype(np.float16),
        labels=labels.astype(np.int8),
        types=np.array(list(KINDS)),
        side=SIDE,
        mass=mass.astype(np.float32),
        pt=pt.astype(np.float32),
        simulator=f"pythia8mc {version('pythia8mc')}, fastjet {version('fastjet')}",
    )


def start(settings: list[str], seed: int) -> pythia8mc.Pythia:
    """PYTHIA with one hard process, in which decays that are named are the only ones."""
    pythia = pythia8mc.Pythia("", False)
    decaying = {line.split(":")[0] for line in settings if ":onIfAny" in line}
    common = [
        "Print:quiet = on",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        f"Beams:eCM = {ENERGY}",
        f"PhaseSpace:pTHatMin = {PT_HARD[0]}",
        f"PhaseSpace:pTHatMax = {PT_HARD[1]}",
    ]
    for line in common + [f"{code}:onMode = off" for code in sorted(decaying)] + settings:
        if not pythia.readString(line):
            raise ValueError(f"PYTHIA does not know {line!r}")
    pythia.init()
    return pythia


def leading_jet(event: pythia8mc.Event, codes: set[int]) -> np.ndarray | None:
    """Momenta (x, y, z) and energies of what remains of the jet of largest transverse momentum after trimming.

    None unless the jet is in range and comes from a particle of one of these codes.
    """
    seen = [particle for particle in event if particle.isFinal() and particle.idAbs() not in UNSEEN]
    parts = [fastjet.PseudoJet(particle.px(), particle.py(), particle.pz(), particle.e()) for particle in seen]
    clusters = fastjet.ClusterSequence(parts, fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS))
    jets = fastjet.sorted_by_pt(clusters.inclusive_jets(PT[0]))
    if not jets or jets[0].pt() > PT[1] or abs(jets[0].eta()) > ETA:
        return None
    jet = jets[0]
    origin = min((event[5], event[6]), key=lambda particle: distance(jet, particle))  # what the hard process makes
    if origin.idAbs() not in codes or distance(jet, origin) > MATCH:
        return None
    if any(distance(jet, quark) > RADIUS for quark in decay_quarks(event, origin)):
        return None
    inner = fastjet.ClusterSequence(list(jet.constituents()), fastjet.JetDefinition(fastjet.kt_algorithm, SUBJET))
    kept = inner.inclusive_jets(FRACTION * jet.pt())
    return np.array([(p.px(), p.py(), p.pz(), p.E()) for subjet in kept for p in subjet.constituents()])


def decay_quarks(event: pythia8mc.Event, particle: pythia8mc.Particle) -> list[pythia8mc.Particle]:
    """Quarks that a boson or a top quark decays to, through a W boson too; a quark alone; none of a gluon."""
    if particle.idAbs() < 6:
        return [particle]
    if particle.idAbs() not in (6, 24, 25):
        return []
    last = event[particle.iBotCopyId()]
    return [quark for i in last.daughterList() for quark in decay_quarks(event, event[i])]


def distance(jet: fastjet.PseudoJet, particle: pythia8mc.Particle) -> float:
    """Distance from a jet's axis in pseudorapidity and azimuth."""
    return np.hypot(particle.eta() - jet.eta(), turn(particle.phi() - jet.phi()))


def turn(angle: np.ndarray | float) -> np.ndarray | float:
    """An angle between -pi and pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def draw(parts: np.ndarray) -> np.ndarray:
    """Sums of transverse momentum in cells, in the jet's own frame: rows from the bottom, columns from the left.

    The centre is the mean of the constituents, weighted by transverse momentum. The principal axis, weighted likewise,
    is vertical; the halves with more transverse momentum are the upper and the right one.
    """
    x, y, z, _ = parts.T
    pt, axis = np.hypot(x, y), parts.sum(axis=0)
    azimuth = turn(np.arctan2(y, x) - np.arctan2(axis[1], axis[0]))
    points = np.column_stack([np.arcsinh(z / pt), azimuth])
    points -= pt @ points / pt.sum()
    points = points @ np.linalg.eigh((points.T * pt) @ points)[1]  # columns: minor axis, principal axis
    points *= np.where(pt @ np.sign(points) < 0, -1, 1)
    edges = CELL * (np.arange(SIDE + 1) - SIDE / 2)
    return np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges), weights=pt)[0].ravel()


if __name__ == "__main__":
    simulate(*([Path(sys.argv[1]), int(sys.argv[2])] if len(sys.argv) > 2 else []))
