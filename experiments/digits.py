"""Record the ablation of chapter 10 at other sizes: what its JSON file already has is not repeated.

Two data sets: the 5,000 embedded digits (4,000 to fit, 1,000 to score, ten seeds) and all of MNIST (60,000 and 10,000,
five seeds, after `gsae data mnist`). Labels score; they choose nothing.
"""

import json
import sys

import torch

from experiments import RESULTS
from experiments.ablation import AblationSettings, ablate, score_results
from gsae_book.recording import write_rows
from gsae_lib import PixelFeatures, ScatteringFeatures, TrainingSettings, load_images

PATH = RESULTS / "09_cluster_digits.json"
SMALL = {"n_train": 4000, "n_test": 1000, "seeds": range(10), "epochs": (0, 1, 3, 10), "batch_size": 100}
FULL = {"n_train": 60_000, "n_test": 10_000, "seeds": range(5), "epochs": (0, 1, 3), "batch_size": 500}
PLANS = {"mnist-5k": SMALL, "mnist": FULL}
METHODS = (
    "k-means",
    "spectral",
    "k-subspaces",
    "strongest group",
    "k-means on codes",
    "k-means on codes_+",
    "k-means on group norms",
)
FEATURES = {"pixels": PixelFeatures, "scattering": ScatteringFeatures}


def main(datasets: list[str]) -> None:
    """Run every missing ablation on the data sets and write the rows after each seed."""
    rows = json.loads(PATH.read_text())["rows"] if PATH.is_file() else []
    for dataset in datasets:
        plan = PLANS[dataset]
        shuffle = torch.Generator().manual_seed(0)
        train_images = load_images(dataset, "train").subset(plan["n_train"], generator=shuffle)
        test_images = load_images(dataset, "test").subset(plan["n_test"], generator=shuffle)
        training = TrainingSettings(batch_size=plan["batch_size"], progress=False)
        settings = AblationSettings(penalty=0.3, epochs=plan["epochs"], training=training)
        for name, maker in FEATURES.items():
            features = maker().fit(train_images)
            data = [torch.from_numpy(features.transform(part)) for part in (train_images, test_images)]
            for seed in plan["seeds"]:
                tags = {"dataset": dataset, "features": name, "seed": seed}
                if any(tags.items() <= row.items() for row in rows):
                    continue
                results = ablate(data[0], settings, seeds=[seed], methods=METHODS, test_data=data[1])
                rows += score_results(results, train_images.labels, test_images.labels, **tags)
                write_rows(PATH, "rows", rows)
                print(
                    *tags.values(),
                    {f"{result.method}, {result.epochs}": round(result.seconds, 1) for result in results},
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:] or list(PLANS))
