"""Files for SAELens: what its formulas make of them, written out in numpy, and what it makes of them where it is."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gsae_lib.sae import BatchTopKSAE, GroupJumpReLUSAE, GroupReLUSAE, GroupTopKSAE, export_sae_lens

ARCHITECTURES = {
    GroupReLUSAE: "standard",
    GroupTopKSAE: "topk",
    BatchTopKSAE: "jumprelu",
    GroupJumpReLUSAE: "jumprelu",
}
READ = """
import sys
import numpy as np
import torch
from sae_lens.saes.sae import SAE
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    sae = SAE.load_from_disk(folder)
    with torch.no_grad():
        codes = sae.encode(torch.from_numpy(np.load(f"{folder}/data.npy")))
        np.savez(f"{folder}/found.npz", codes=codes.numpy(), rebuilt=sae.decode(codes).numpy())
"""


def make(rng, kind, dtype=torch.float64, **settings):
    """A model whose parts are all different from what they start as, and data off the origin."""
    settings = {"n_active": 3, "nonnegative": True, "decoder": "free"} | settings
    model = kind(8, 20, 1, generator=rng, **settings).to(dtype)
    data = 2 + 3 * torch.randn(50, 8, generator=rng, dtype=dtype)
    model.prepare(data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng, dtype=dtype)
    if model.n_active is not None:
        model.calibrate(data)
    return model, data


def read_as_they_do(folder, y):
    """Codes and reconstructions by the formulas of SAELens's architectures."""
    arrays, settings = load_file(folder / "sae_weights.safetensors"), json.loads((folder / "cfg.json").read_text())
    before = (y - arrays["b_dec"] * settings["apply_b_dec_to_input"]) @ arrays["W_enc"] + arrays["b_enc"]
    codes = np.maximum(before, 0)
    if settings["architecture"] == "topk":
        for row in codes:
            row[np.argsort(-row)[settings["k"] :]] = 0
    elif settings["architecture"] == "jumprelu":
        codes *= before > arrays["threshold"]
    return codes, codes @ arrays["W_dec"] + arrays["b_dec"], settings


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *itertools.product(ARCHITECTURES, ({}, {"tied": True}, {"bias": False})),
        (GroupJumpReLUSAE, {"n_active": None, "threshold": 0.7}),
    ],
    ids=str,
)
def test_their_formulas_give_the_models_codes(kind, settings, rng, tmp_path):
    """Fails if a scale, a sign, a bias or a threshold is not where their formulas expect it, or metadata are lost."""
    model, data = make(rng, kind, **settings)
    export_sae_lens(model, tmp_path / "new" / "folder", metadata={"hook_name": "blocks.6.hook_resid_post"})
    codes, rebuilt, told = read_as_they_do(tmp_path / "new" / "folder", data.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(codes, model.scale * model.encode(data), atol=1e-10)
        np.testing.assert_allclose(rebuilt, model(data)[0], atol=1e-10)
    if model.n_active is not None:
        assert (codes > 0).sum(axis=1).mean() == pytest.approx(3, abs=0.1)
    assert told["architecture"] == ARCHITECTURES[kind]
    assert (told["d_in"], told["d_sae"], told["dtype"]) == (8, 20, "float64")
    assert told["metadata"]["hook_name"] == "blocks.6.hook_resid_post"


def test_what_their_format_cannot_hold_is_refused(rng, tmp_path):
    """Fails if groups are written as if their atoms had gates of their own."""
    with pytest.raises(ValueError, match="group_size=2: expected 1"):
        export_sae_lens(BatchTopKSAE(6, 4, 2, n_active=2, generator=rng), tmp_path)
    with pytest.raises(ValueError, match="nonnegative=False: expected True"):
        export_sae_lens(BatchTopKSAE(6, 4, 1, n_active=2, generator=rng), tmp_path)
    with pytest.raises(ValueError, match="threshold: not known yet"):
        export_sae_lens(BatchTopKSAE(6, 4, 1, n_active=2, nonnegative=True, generator=rng), tmp_path)
    assert not list(tmp_path.iterdir())


def python_with_sae_lens():
    """An interpreter that has SAELens: this one, that of the benchmarks, or the one that SAELENS_PYTHON names."""
    if importlib.util.find_spec("sae_lens"):
        return sys.executable
    known = [os.environ.get("SAELENS_PYTHON", ""), Path(__file__).parents[2] / "_build/rivals/saelens/bin/python"]
    return next((str(path) for path in known if path and Path(path).is_file()), None)


@pytest.mark.skipif(python_with_sae_lens() is None, reason="SAELens is not installed")
def test_sae_lens_reads_what_is_written(rng, tmp_path):
    """Fails if SAELens does not take the files of an architecture, or rebuilds anything else."""
    models = {str(tmp_path / kind.__name__): make(rng, kind, torch.float32) for kind in ARCHITECTURES}
    for folder, (model, data) in models.items():
        export_sae_lens(model, folder)
        np.save(Path(folder, "data.npy"), data.numpy())
    command = [python_with_sae_lens(), "-c", READ, *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, (model, data) in models.items():
        found = np.load(Path(folder, "found.npz"))
        with torch.no_grad():
            np.testing.assert_allclose(found["codes"], model.scale * model.encode(data), atol=1e-4)
            np.testing.assert_allclose(found["rebuilt"], model(data)[0], atol=1e-4)
