"""What simulations of the generative model have in common: sizes, noise and norms, and the source that they say."""

import dataclasses
from typing import ClassVar, Literal

from gsae_lib._checks import check_int, check_real
from gsae_lib.dictionary import Dictionary
from gsae_lib.generative import GroupSparseSource
from gsae_lib.theory import Population


@dataclasses.dataclass(frozen=True)
class Simulation:
    """The generative model of an experiment (arXiv 2102.07003, eq. 2 and Section 4).

    n_features, n_groups, group_size, n_active: n, Gamma, d, gamma. n_samples: N. snr_db: of the noise. smallest_norm,
    largest_norm: of active groups, whose norms are uniform between them.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """

    n_features: int
    n_groups: int
    group_size: int
    n_active: int
    n_samples: int
    snr_db: float
    smallest_norm: float = 4.0
    largest_norm: float = 5.0
    orthonormal: ClassVar[bool] = False  # whether true groups are orthonormal, or have Gaussian unit columns

    def __post_init__(self) -> None:
        check_int("n_samples", self.n_samples)
        check_real("snr_db", self.snr_db, low=-300.0, high=300.0)
        _ = self.population

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(n_features, n_groups, group_size)."""
        return self.n_features, self.n_groups, self.group_size

    @property
    def population(self) -> Population:
        """The population that is drawn from, for the predictions of `gsae_lib.theory`."""
        norms = (self.smallest_norm, self.largest_norm)
        return Population.at_snr((*self.sizes, self.n_active), norms, self.snr_db, orthonormal=self.orthonormal)

    def source(self, dictionary: Dictionary, snr_of: Literal["source", "sample"] = "source") -> GroupSparseSource:
        """The source with this true dictionary; see there for `snr_of`."""
        norms = (self.smallest_norm, self.largest_norm)
        return GroupSparseSource(
            dictionary, self.group_size, self.n_active, norm_range=norms, snr_db=self.snr_db, snr_of=snr_of
        )
