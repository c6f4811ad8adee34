"""A device that is not there: tensors that claim it, keep their values on the CPU, and refuse what a GPU refuses."""

from collections import Counter
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
# Operators that may take tensors of both: those that copy, and indices, which may stay on the CPU.
COPIES = {"_to_copy", "copy_", "_copy_from"}
INDEXES = {"index", "index_put_", "_index_put_impl_", "index_put"}
# Operators that wait for the device, since the host needs a value, or how many there are.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
RESHAPES = {"squeeze_", "unsqueeze_", "t_", "transpose_"}  # in place
synchronisations: Counter[str] = Counter()


class Elsewhere(torch.Tensor):
    """A tensor that says it is on the device; `values` are its values, on the CPU."""

    values_here: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        """Wrap values of the CPU."""
        layout: dict[str, Any] = {} if values.layout != torch.strided else {
            "strides": values.stride(), "storage_offset": values.storage_offset()}  # fmt: skip
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, dtype=values.dtype, device=DEVICE, layout=values.layout, **layout
        )
        made.values_here = values
        return made

    def tolist(self) -> Any:
        """From a copy; torch has none for a class of one's own."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As `run`."""
        return run(operator, args, kwargs or {})


def run(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives on the CPU, on the device that it would be on, or an error as a GPU has it."""
    name = operator._schema.name.removeprefix("aten::")
    leaves = tree_leaves((args, kwargs))
    there = [x for x in leaves if isinstance(x, Elsewhere)]
    looked_at = leaves if name not in INDEXES else tree_leaves((args[0], args[2:]))
    here = [x for x in looked_at if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) and x.ndim]
    if name not in COPIES and any(isinstance(x, Elsewhere) for x in leaves) and here:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {DEVICE} and cpu")
    asked = kwargs.get("device")
    target = torch.device(asked) if asked is not None else DEVICE if there else CPU
    if target.type == DEVICE.type and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{name}: expected a generator of {DEVICE}, got one of the CPU")
    booleans = name in INDEXES and any(
        x.dtype == torch.bool for x in tree_leaves(args[1]) if isinstance(x, torch.Tensor)
    )
    if there and (name in WAITS or booleans or (name == "_to_copy" and target == CPU)):
        synchronisations[name] += 1
    found = operator(*tree_map(bring, args), **tree_map(bring, kwargs | ({"device": CPU} if asked is not None else {})))
    if name in RESHAPES:
        with no_dispatch():  # a change of shape in place
            args[0].as_strided_(found.shape, found.stride(), found.storage_offset())
    same = {id(x.values_here): x for x in there}  # what is changed in place stays the tensor that it was
    return found if target == CPU else tree_map(lambda x: same[id(x)] if id(x) in same else send(x), found)


def bring(x: Any) -> Any:
    """The values of what is elsewhere."""
    return x.values_here if isinstance(x, Elsewhere) else x


def send(x: Any) -> Any:
    """A tensor of the CPU as one of the device."""
    return Elsewhere(x) if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) else x


class Pretending(TorchDispatchMode):
    """Within it, what is made on the device is made; what is there knows so by itself."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As `run`."""
        return run(operator, args, kwargs or {})


backend_registration._setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended", 0)
# What torch calls below any mode, to make an index of a list.
LIBRARY = torch.library.Library("aten", "IMPL")
for made in (torch.ops.aten.empty_strided.default, torch.ops.aten.empty.memory_format):
    LIBRARY.impl(made, lambda *args, made=made, **kwargs: run(made, args, kwargs), "PrivateUse1")
LIBRARY.impl("_copy_from", lambda x, y, *_: bring(y).copy_(bring(x)) if y is not None else y, "PrivateUse1")
