"""Time one curve of Figure 3: 300 epochs at the paper's size on fresh data, errors every ten epochs included.

With the data drawn between the steps, and drawn ahead in a thread of their own.
"""

import time

import timing
import torch

from gsae_lib import GroupSparseAutoencoder, GroupSparseSource, TrainingSettings, train
from gsae_lib.dictionary import perturbed_dictionary
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.training import DictionaryErrors

EPOCHS = 300


def run(ahead: bool, epochs: int = EPOCHS) -> dict[str, float]:
    """Seconds of the wall and of the processor, and the error at the end."""
    rng = torch.Generator().manual_seed(0)
    truth = gaussian_dictionary(950, 500, 2, generator=rng)
    source = GroupSparseSource(truth, 2, 3, snr_db=1.0, snr_of="sample")
    start = perturbed_dictionary(truth, 0.555, generator=rng)
    model = GroupSparseAutoencoder(950, 500, 2, 2.0, step_size=1.0, dictionary=start)
    plan = TrainingSettings(epochs=epochs, learning_rate=1e-3, progress=False)
    wall, processor = time.perf_counter(), time.process_time()
    stream = source.stream(10_000, generator=rng, ahead=ahead)
    history = train(model, stream, plan, generator=rng, callbacks=[DictionaryErrors(truth, 2, 10)])
    found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    return found | {"error": 500 * history.curves["columns"][-1]}


def main() -> None:
    """Measure, print and write the rows."""
    run(False, epochs=10)
    rows = []
    for threads, ahead in ((1, False), (2, False), (2, True)):
        torch.set_num_threads(threads)
        rows.append({"threads": threads, "ahead": ahead} | run(ahead))
        print(rows[-1], flush=True)
    timing.write("figure_3_curve", epochs=EPOCHS, rows=rows)


if __name__ == "__main__":
    main()
