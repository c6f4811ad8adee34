"""The networks in one graph: compiled whole and exported, with the numbers and gradients of plain PyTorch."""

import pytest
import torch

from gsae_lib import GroupReLU, GroupSparseAutoencoder, LayeredAutoencoder, SparseAutoencoder
from gsae_lib.generative import gaussian_dictionary
from gsae_lib.penalty import GroupPenalty
from gsae_lib.sae import BatchTopKSAE, GroupJumpReLUSAE, GroupReLUSAE, GroupSAE, GroupTopKSAE

SIZES = (12, 5, 3)


def make(kind, rng, **settings):
    """A network in float64 whose groups are partly active on what `data_for` draws."""
    weight = gaussian_dictionary(12, 5, 3, generator=rng, dtype=torch.float64)
    if issubclass(kind, GroupSAE):
        model = kind(*SIZES, dictionary=weight, **settings)
        model.prepare(data_for(rng))
        return model
    if kind is SparseAutoencoder:
        return kind(12, 15, 0.3, dictionary=weight, **settings)
    if kind is LayeredAutoencoder:
        width = 5 if settings.get("passed", "norms") == "norms" else 15
        above = gaussian_dictionary(width, 2, 2, generator=rng, dtype=torch.float64).abs()
        lower = GroupSparseAutoencoder(*SIZES, 0.3, dictionary=weight, n_iterations=2)
        return kind([lower, GroupSparseAutoencoder(width, 2, 2, 0.1, dictionary=above)], **settings)
    return GroupSparseAutoencoder(12, 5, **{"penalty": GroupPenalty(0.3, 3), "dictionary": weight} | settings)


def data_for(rng, n_samples=40):
    return 2 * torch.randn(n_samples, 12, dtype=torch.float64, generator=rng)


def results(call, model, data):
    """Outputs, and the gradients of a loss that weighs them unevenly, of the data and of all parameters."""
    model.zero_grad()
    data = data.clone().requires_grad_()
    outputs = call(data)
    sum(x.sin().sum() for x in outputs).backward()
    return {f"output {i}": x.detach() for i, x in enumerate(outputs)} | {
        f"gradient of {name}": x.grad for name, x in [("data", data), *model.named_parameters()]
    }


PLAIN = GroupSparseAutoencoder
NETWORKS = {
    "the paper's": (PLAIN, {"step_size": 1.0}),
    "tied": (PLAIN, {"n_iterations": 3}),
    "untied ISTA": (PLAIN, {"n_iterations": 3, "accelerated": False, "tied": False}),
    "nonnegative": (PLAIN, {"n_iterations": 3, "penalty": GroupPenalty(0.3, 3, nonnegative=True, l1=0.05)}),
    "sparse-group": (PLAIN, {"n_iterations": 3, "penalty": GroupPenalty(0.3, 3, l1=0.05)}),
    "checkpointed": (PLAIN, {"n_iterations": 3, "checkpoint": True}),
    "codes held fixed": (PLAIN, {"n_iterations": 2, "gradient": "decoder"}),
    "weights": (PLAIN, {"n_iterations": 2, "penalty": GroupPenalty(1.0, 3, weights=torch.linspace(0.1, 0.9, 5))}),
    "several sizes": (PLAIN, {"n_iterations": 2, "penalty": GroupPenalty(0.3, [3, 1, 4, 5, 2])}),
    "sparse": (SparseAutoencoder, {"n_iterations": 3}),
    "layers": (LayeredAutoencoder, {"restore": True}),
    "stack": (LayeredAutoencoder, {"passed": "codes", "n_iterations": 2}),
    "group ReLU": (GroupReLUSAE, {"n_active": 2}),
    "group top-k": (GroupTopKSAE, {"n_active": 2, "nonnegative": True}),
    "batch top-k": (BatchTopKSAE, {"n_active": 2, "tied": True, "bias": False}),
    "group JumpReLU": (GroupJumpReLUSAE, {"n_active": 2}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_one_graph(name, rng):
    """Fails if a value is looked at on the way (a check, a branch), a batch size is fixed, or a derivative changes."""
    kind, settings = NETWORKS[name]
    model, data, fewer = make(kind, rng, **settings), data_for(rng), data_for(rng, 17)
    torch.compiler.reset()
    backend = "aot_eager" if name in ("tied", "group ReLU") else "eager"  # which traces the backward pass too, slowly
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(model, (data,), dynamic_shapes=({0: batch},)).module()
    for graph, parameters, x in ((compiled, model, data), (exported, exported, data), (exported, exported, fewer)):
        plain, found = results(model, model, x), results(graph, parameters, x)
        assert bool((plain["output 1"] != 0).any()) and found.keys() == plain.keys()
        if name == "group JumpReLU" and graph is exported:  # an exported graph holds no pseudo-derivative
            del plain["gradient of log_threshold"]
        for key, value in plain.items():
            assert (value is None) == (found[key] is None), key
            assert value is None or torch.allclose(found[key], value, rtol=1e-11, atol=1e-11), key


def test_a_layer_and_a_single_precision_network_are_one_graph(rng):
    """Fails if the layer looks at its threshold, or if a step in double precision makes a graph double."""
    data = data_for(rng).float()
    network = make(PLAIN, rng, n_iterations=3, penalty=GroupPenalty(0.3, 3, l1=0.05, nonnegative=True)).float()
    for model in (network, GroupReLU(torch.linspace(0.1, 0.9, 4), 3, elementwise_threshold=0.1)):
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        with torch.no_grad():
            found, plain = compiled(data), model(data)
            exported = torch.export.export(model, (data,)).module()(data)
        for x, y, z in zip(*((v if isinstance(v, tuple) else (v,)) for v in (plain, found, exported)), strict=True):
            assert y.dtype == z.dtype == torch.float32
            assert torch.allclose(y, x, atol=1e-5) and torch.allclose(z, x, atol=1e-5)


def test_a_compiled_sae_says_that_its_threshold_is_unknown(rng):
    """Fails if a graph codes with a threshold that no data have set."""
    model = BatchTopKSAE(*SIZES, n_active=2, generator=rng)
    with pytest.raises(RuntimeError, match="not known yet"):
        torch.compile(model, fullgraph=True, backend="eager")(torch.ones(3, 12))
