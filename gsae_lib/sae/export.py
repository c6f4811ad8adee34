"""Sparse autoencoders in the formats of other libraries, of which SAELens's is the one that most programs read.

A file there names an architecture and holds weights and biases. None of its architectures has groups: a gate looks at
one entry of a code, and that of a group looks at all entries of the group. So groups of one can be written, and others
cannot: their atoms would be gated one by one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_bytes

from gsae_lib._checks import check_full_precision
from gsae_lib._files import replace_file
from gsae_lib._version import __version__
from gsae_lib.sae.architectures import (
    BatchTopKSAE,
    GroupJumpReLUSAE,
    GroupReLUSAE,
    GroupSAE,
    GroupTopKSAE,
)

FORMAT = "6.0.0"  # the version of SAELens since which its files look like this


def export_sae_lens(model: GroupSAE, folder: str | Path, *, metadata: Mapping[str, Any] | None = None) -> None:
    r"""Write cfg.json and sae_weights.safetensors, which `SAE.load_from_disk(folder)` of SAELens 6 reads.

    .. math:: z' = \sigma \big( U^T (y - s c) + s b \big), \qquad \hat y = W z' + s c

    with codes z' = s z in the units of the data, so that thresholds are multiplied by the scale s, too. A group top-k
    becomes its "topk", batch top-k and group JumpReLU its "jumprelu", and the group ReLU its "standard", with s (b -
    theta) for a bias. The codes and reconstructions that it then gives are the model's, up to rounding.

    Args:
        model: with groups of one, and nonnegative. folder: is made. metadata: for its users, such as model_name and
            hook_name, in JSON.

    Raises:
        ValueError: groups of more than one, codes of either sign, a threshold that is not known, or a class that is
            none of these.
        OSError: a file cannot be written.
    """
    if model.group_size != 1:
        raise ValueError(f"model.group_size={model.group_size}: expected 1, since SAELens has no activation of groups")
    if not model.nonnegative:
        raise ValueError("model.nonnegative=False: expected True, as for all codes there")
    check_full_precision("weight", model.weight)
    scale, found = float(model.scale), model.thresholds()
    weight, dtype = model.weight.detach().cpu().numpy(), str(model.weight.dtype).removeprefix("torch.")
    encoder = weight if model.encoder_weight is None else model.encoder_weight.detach().cpu().numpy()
    zeros = np.zeros(model.n_groups, dtype=weight.dtype), np.zeros(model.n_features, dtype=weight.dtype)
    bias = zeros[0] if model.encoder_bias is None else scale * model.encoder_bias.detach().cpu().numpy()
    centre = zeros[1] if model.centre is None else scale * model.centre.detach().cpu().numpy()
    threshold = zeros[0] if found is None else (scale * found.detach().cpu()).expand(model.n_groups).numpy()
    arrays = {"W_enc": encoder, "b_enc": bias, "W_dec": weight.T, "b_dec": centre}
    settings: dict[str, Any] = {"d_in": model.n_features, "d_sae": model.n_groups, "dtype": dtype, "device": "cpu"}
    settings |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    match model:
        case GroupTopKSAE():
            settings |= {"architecture": "topk", "k": model.n_active, "rescale_acts_by_decoder_norm": False}
        case GroupReLUSAE():
            settings["architecture"], arrays["b_enc"] = "standard", bias - threshold
        case BatchTopKSAE() | GroupJumpReLUSAE():
            settings["architecture"], arrays["threshold"] = "jumprelu", threshold
        case _:
            raise ValueError(f"model: expected an architecture that SAELens has, got {type(model).__name__}")
    told = {"sae_lens_version": FORMAT, "sae_lens_training_version": None, "trained_by": f"gsae_lib {__version__}"}
    text = json.dumps(settings | {"metadata": told | dict(metadata or {})}, indent=1, allow_nan=False)
    packed = to_bytes({name: np.ascontiguousarray(array, dtype=weight.dtype) for name, array in arrays.items()})
    Path(folder).mkdir(parents=True, exist_ok=True)
    replace_file(Path(folder) / "sae_weights.safetensors", packed)
    replace_file(Path(folder) / "cfg.json", text + "\n")
