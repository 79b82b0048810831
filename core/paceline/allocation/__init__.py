"""Pure algorithms that decide how many tasks each worker gets: (statistics, generator) -> allocation.

Imports numpy and the standard library's data types only; no I/O, no clock, no global random numbers.
"""

from paceline.allocation.exact import allocate
from paceline.allocation.expected import GREEDY, ORACLE, UNIFORM, ExpectedRound, expected_rounds
from paceline.allocation.exponential import (
    Moments,
    Quadrature,
    max_moments,
    max_moments_exact,
    order_statistic_moments,
    quadrature,
)
from paceline.allocation.indices import Exploration, exploration_term, kl_factor, kl_indices, lcb_indices, smallest
from paceline.allocation.newcomers import allocate_with_newcomers
from paceline.allocation.scores import (
    AS_RUN,
    PAPER,
    Constants,
    ata_empirical_radius_s,
    ata_empirical_scores,
    ata_scores,
    constant_for,
    log_term,
)
from paceline.allocation.uniform import spread

__all__ = [
    "AS_RUN",
    "GREEDY",
    "ORACLE",
    "PAPER",
    "UNIFORM",
    "Constants",
    "ExpectedRound",
    "Exploration",
    "Moments",
    "Quadrature",
    "allocate",
    "allocate_with_newcomers",
    "ata_empirical_radius_s",
    "ata_empirical_scores",
    "ata_scores",
    "constant_for",
    "expected_rounds",
    "exploration_term",
    "kl_factor",
    "kl_indices",
    "lcb_indices",
    "log_term",
    "max_moments",
    "max_moments_exact",
    "order_statistic_moments",
    "quadrature",
    "smallest",
    "spread",
]
