"""Simulate the signals of chapters 14 and 17: six types of events, whitened by the design noise of Advanced LIGO.

Chapter 14 has them in noise, chapter 17 without it, to be added. LALSuite needs an environment of its own; signals.py
and sums.py then compare methods in the project's:

    python -m venv /tmp/gw && /tmp/gw/bin/pip install lalsuite==7.26.16
    PYTHONPATH=. /tmp/gw/bin/python -m experiments.signals.simulate
"""

from importlib.metadata import version
from pathlib import Path

import lal
import lalsimulation
import numpy as np

from experiments import RESULTS

PATH, SINGLES_PATH = RESULTS / "14_signals.npz", RESULTS / "17_signals.npz"
SEED = 2103  # signals seen with labels while settings were still open had seeds 7 and 2102
SINGLES_SEED = 2104
COUNT, SINGLES_COUNT = 334, 300  # signals of each type, in noise and without
RATE, SAMPLES, EVENT = 1024, 256, 160  # Hz; samples of a signal; sample of the event: coalescence, or centre of a burst
LOW, HIGH = 20.0, 512.0  # Hz, the band
FINE, SECONDS, CENTRE = 4096, 16, 12  # Hz, s and s, of the simulation and its event
SHIFT = 4e-3  # s, largest time offset
SNRS = (6.0, 20.0)  # norm of the whitened waveform in the window; uniform in the logarithm
TYPES = {  # ranges of the parameters, uniform and independent
    "light binary": ("binary", (8.0, 12.0), (8.0, 12.0)),  # masses of the black holes, solar masses
    "medium binary": ("binary", (25.0, 35.0), (25.0, 35.0)),
    "heavy binary": ("binary", (65.0, 95.0), (65.0, 95.0)),
    "low burst": ("burst", (100.0, 140.0), (6.0, 12.0)),  # centre in Hz, Q
    "high burst": ("burst", (200.0, 280.0), (6.0, 12.0)),
    "ringdown": ("ringdown", (80.0, 110.0), (0.5, 0.8)),  # mass in solar masses, spin
}
FAR = 1e8 * lal.PC_SI  # distance; the SNR sets the scale


def simulate(path: Path = PATH, seed: int = SEED) -> None:
    """Simulate COUNT signals of each type and write them, shuffled.

    Beside them: the first signal of each type without its noise, and two quadratures at the middle of its ranges.
    """
    rng, gsl, psd = np.random.default_rng(seed), lal.gsl_rng("ranlux", seed), design_noise()
    noise = lal.CreateREAL8TimeSeries("noise", lal.LIGOTimeGPS(0), 0, 1 / FINE, lal.StrainUnit, SECONDS * FINE)
    rows, quadratures = [], []
    for label, (kind, *ranges) in enumerate(TYPES.values()):
        middle = waveforms(kind, np.mean(ranges, axis=1), phase=0.0, inclination=0.0)
        quadratures.append([whiten(strain, psd) for strain in middle])
        for _ in range(COUNT):
            clean = draw_waveform(kind, ranges, psd, rng)
            snr = np.exp(rng.uniform(*np.log(SNRS)))
            clean *= snr
            lalsimulation.SimNoise(noise, 0, psd, gsl)
            rows.append((clean + whiten(noise.data.data, psd), clean, label, snr))
    order = rng.permutation(len(rows))
    signals, clean, labels, snrs = (np.array(column)[order] for column in zip(*rows, strict=True))
    firsts = [np.argmax(labels == k) for k in range(len(TYPES))]
    quadratures = np.array(quadratures)
    np.savez_compressed(
        path,
        signals=signals.astype(np.float16),
        labels=labels.astype(np.int8),
        snrs=snrs.astype(np.float32),
        types=np.array(list(TYPES)),
        clean=clean[firsts].astype(np.float16),
        quadratures=(quadratures / np.linalg.norm(quadratures, axis=2, keepdims=True)).astype(np.float16),
        rate=RATE,
        event=EVENT,
        simulator=f"lalsuite {version('lalsuite')}",
    )


def simulate_singles(path: Path = SINGLES_PATH, seed: int = SINGLES_SEED) -> None:
    """Simulate SINGLES_COUNT waveforms of each type and write them, shuffled and at unit norm."""
    rng, psd = np.random.default_rng(seed), design_noise()
    singles = [draw_waveform(kind, ranges, psd, rng) for kind, *ranges in TYPES.values() for _ in range(SINGLES_COUNT)]
    labels = np.repeat(np.arange(len(TYPES), dtype=np.int8), SINGLES_COUNT)
    order = rng.permutation(len(labels))
    np.savez_compressed(
        path,
        singles=np.array(singles)[order].astype(np.float16),
        labels=labels[order],
        types=np.array(list(TYPES)),
        simulator=f"lalsuite {version('lalsuite')}",
    )


def design_noise() -> lal.REAL8FrequencySeries:
    """The power spectrum of the noise: Advanced LIGO's design, zero detuning and high power."""
    start, bins = lal.LIGOTimeGPS(0), SECONDS * FINE // 2 + 1
    psd = lal.CreateREAL8FrequencySeries("psd", start, 0, 1 / SECONDS, lal.SecondUnit, bins)
    lalsimulation.SimNoisePSD(psd, 0, lalsimulation.SimNoisePSDaLIGOZeroDetHighPowerPtr)
    return psd


def draw_waveform(
    kind: str, ranges: list[tuple[float, float]], psd: lal.REAL8FrequencySeries, rng: np.random.Generator
) -> np.ndarray:
    """The window of a whitened waveform of random parameters, orientation, phase and shift, at unit norm."""
    parameters = [rng.uniform(*limits) for limits in ranges]
    plus, cross = waveforms(kind, parameters, rng.uniform(0, 2 * np.pi), np.arccos(rng.uniform(-1, 1)))
    angle = rng.uniform(0, 2 * np.pi)  # twice that of polarisation, the source being overhead
    clean = whiten(np.cos(angle) * plus + np.sin(angle) * cross, psd, rng.uniform(-SHIFT, SHIFT))
    return clean / np.linalg.norm(clean)


def waveforms(kind: str, parameters: list[float], phase: float, inclination: float) -> list[np.ndarray]:
    """Plus and cross polarisation of an event at CENTRE."""
    if kind == "binary":
        heavier, lighter = sorted(parameters, reverse=True)
        slow = 270 / (heavier + lighter) ** 0.6  # Hz: the simulation begins long before the window
        masses, spins = (heavier * lal.MSUN_SI, lighter * lal.MSUN_SI), [0.0] * 6
        angles, model = (inclination, phase, 0, 0, 0), lalsimulation.IMRPhenomD
        pair = lalsimulation.SimInspiralTD(*masses, *spins, FAR, *angles, 1 / FINE, slow, slow, None, model)
    elif kind == "burst":
        frequency, quality = parameters
        pair = lalsimulation.SimBurstSineGaussian(quality, frequency, 1e-22, 0.0, phase, 1 / FINE)
    else:
        mass, spin = parameters
        end = (lal.LIGOTimeGPS(0), phase, 1 / FINE, mass * lal.MSUN_SI, spin, 0.01, FAR, inclination, 2, 2)
        pair = lalsimulation.SimBlackHoleRingdown(*end)
    strains = [np.zeros(SECONDS * FINE) for _ in pair]
    for strain, series in zip(strains, pair, strict=True):
        first = CENTRE * FINE + round(float(series.epoch) * FINE)
        strain[first : first + series.data.length] = series.data.data
    return strains


def whiten(strain: np.ndarray, psd: lal.REAL8FrequencySeries, shift: float = 0.0) -> np.ndarray:
    """The window around the event, whitened to noise of variance one, band-limited, later by `shift` seconds."""
    frequencies = np.fft.rfftfreq(len(strain), 1 / FINE)
    band = (frequencies >= LOW) & (frequencies < HIGH)
    spectrum = np.fft.rfft(strain) * np.exp(-2j * np.pi * frequencies * shift)
    spectrum[band] *= (2 / (psd.data.data[band] * RATE)) ** 0.5
    spectrum[~band] = 0
    first = RATE * CENTRE - EVENT
    return np.fft.irfft(spectrum, len(strain))[:: FINE // RATE][first : first + SAMPLES]


if __name__ == "__main__":
    for run, path in ((simulate, PATH), (simulate_singles, SINGLES_PATH)):
        if not path.is_file():
            run(path)
