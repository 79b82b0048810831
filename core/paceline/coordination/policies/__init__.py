"""The policies: small rules over `paceline.allocation`, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paceline.coordination.plan import Policy
from paceline.coordination.policies.ata import Ata, AtaEmpirical
from paceline.coordination.policies.fixed import Fixed
from paceline.coordination.policies.greedy import Greedy
from paceline.coordination.policies.uniform import Uniform
from paceline.errors import UsageError

POLICY_NAMES = ("ata-empirical", "ata", "greedy", "uniform", "fixed")


def make_policy(
    name: str,
    *,
    rng: np.random.Generator,
    constants: str = "paper",
    alpha_s: float | None = None,
    means_s: Mapping[str, float] | None = None,
) -> Policy:
    """Make a policy by name.

    Args:
        rng: all chance of the policy comes from it.
        constants: of the confidence radius, for the ATA policies: "paper", "as-run" or a number.
        alpha_s: for `ata`; None: twice the largest learned mean.
        means_s: for `fixed`: seconds per task by worker name.

    Raises:
        UsageError: an unknown name, constants that do not parse, `fixed` without means.
    """
    match name:
        case "ata-empirical":
            return AtaEmpirical(rng, constants)
        case "ata":
            return Ata(rng, constants, alpha_s)
        case "greedy":
            return Greedy()
        case "uniform":
            return Uniform(rng)
        case "fixed":
            return Fixed(rng, means_s or {})
    raise UsageError(f"policy is {name!r}: expected one of {', '.join(POLICY_NAMES)}")


__all__ = ["POLICY_NAMES", "Ata", "AtaEmpirical", "Fixed", "Greedy", "Uniform", "make_policy"]
