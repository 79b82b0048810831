"""One experiment as it will be run: a preset with what the user changed, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.coordination.policies import EMPLOYING, check_policy
from paceline.errors import UsageError
from paceline.simulation.experiments.games import COMPILED_POLICIES
from paceline.simulation.experiments.presets import Preset
from paceline.simulation.setting import Setting
from paceline.simulation.shapes import Laws, parse_shape, scaled

MOST_COORDINATED_ROUNDS = 2_000
"""The coordinator itself does some thousand rounds a minute."""

_OTHER_UPDATES = frozenset(
    {"adaptive-k-sync", "k-async", "k-batch-async", "asgd", "ringmaster", "malenia", "mindflayer"}
)
"""Policies whose updates are not made of B fresh results: their loss curve against rounds is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs from the preset; None: nothing.

    Attributes:
        rounds: of the policies with a compiled path; also the most for the others.
        coordinated_rounds: of the policies that run on the coordinator itself, at most.
        coordinator: run every policy there.
        k_start, k_step, switch_at, staleness: see policies.PolicyOptions.
    """

    workers: int | None = None
    tasks: int | None = None
    rounds: int | None = None
    law: str | None = None
    means_s: tuple[float, ...] | None = None
    policies: tuple[str, ...] | None = None
    constants: str = "as-run"
    seed: int = 0
    repeats: int | None = None
    priors: tuple[int, ...] | None = None
    coordinator: bool = False
    coordinated_rounds: int = MOST_COORDINATED_ROUNDS
    k_start: int | None = None
    k_step: int = 1
    switch_at: str | None = None
    staleness: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy, and the rounds that it has learned for before the clock starts."""

    policy: str
    prior: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What will be simulated.

    Attributes:
        law: in words.
        variants: in the order of the table.
        seeds: one for each repetition.
        changes: what the user asked for.
    """

    preset: Preset
    laws: Laws
    law: str
    tasks: int
    rounds: int
    constants: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    coordinator: bool
    coordinated_rounds: int
    changes: Changes

    def setting(self, seed: int) -> Setting:
        """Give the setting of one repetition."""
        return Setting(
            laws=self.laws,
            tasks=self.tasks,
            constants=self.constants,
            seed=seed,
            k_start=self.changes.k_start,
            k_step=self.changes.k_step,
            switch_at=self.changes.switch_at,
            staleness=self.changes.staleness,
        )

    def is_compiled(self, policy: str) -> bool:
        """Tell whether a policy takes the compiled path."""
        return policy in COMPILED_POLICIES and not self.coordinator

    def shares_loss_curve(self, policy: str) -> bool:
        """Tell whether a policy's updates are made as all the paper's are, of B fresh results each."""
        return policy not in _OTHER_UPDATES

    def rounds_of(self, policy: str) -> int:
        """Tell how many rounds a policy is simulated for."""
        return self.rounds if self.is_compiled(policy) else min(self.rounds, self.coordinated_rounds)


def experiment(preset: Preset, changes: Changes) -> Experiment:
    """Apply the changes to the preset.

    Raises:
        UsageError: names, laws or numbers that cannot be, or that contradict each other.
    """
    means_s = _means_s(preset, changes)
    tasks = preset.tasks if changes.tasks is None else changes.tasks
    if changes.law is None:
        law, laws = preset.law, preset.laws(means_s)
    else:
        shape = parse_shape(changes.law)
        law, laws = str(shape), scaled(shape, means_s)
    policies = changes.policies or preset.policies
    _check_policies(policies, tasks, laws.workers)
    priors = preset.priors if changes.priors is None else changes.priors
    repeats = preset.repeats if changes.repeats is None else changes.repeats
    made = Experiment(
        preset=preset,
        laws=laws,
        law=law,
        tasks=tasks,
        rounds=preset.rounds if changes.rounds is None else changes.rounds,
        constants=changes.constants,
        variants=tuple(_variants(policies, priors)),
        seeds=tuple(range(changes.seed, changes.seed + repeats)),
        coordinator=changes.coordinator,
        coordinated_rounds=changes.coordinated_rounds,
        changes=changes,
    )
    late = next((variant for variant in made.variants if variant.prior and not made.is_compiled(variant.policy)), None)
    if late is not None:
        raise UsageError(f"--prior is {late.prior} for {late.policy}: expected policies with a compiled path")
    made.setting(changes.seed)  # Checks tasks and constants.
    return made


def parse_means(text: str) -> tuple[float, ...]:
    """Read seconds per task, one number per worker, separated by commas.

    Raises:
        UsageError: one is no number.
    """
    means_s = []
    for word in text.split(","):
        try:
            means_s.append(float(word))
        except ValueError:
            raise UsageError(f"--means has {word.strip()!r} for a number: expected one per worker, 1,2.5,4") from None
    return tuple(means_s)


def _means_s(preset: Preset, changes: Changes) -> tuple[float, ...]:
    if changes.means_s is None:
        return preset.means_s(preset.workers if changes.workers is None else changes.workers)
    if changes.workers is not None and changes.workers != len(changes.means_s):
        raise UsageError(f"--means has {len(changes.means_s)} numbers for {changes.workers} workers: expected one each")
    return changes.means_s


def _check_policies(policies: Sequence[str], tasks: int, workers: int) -> None:
    for policy in policies:
        check_policy(policy)
        if policies.count(policy) > 1:
            raise UsageError(f"--policy names {policy} twice: expected different policies")
        if policy in EMPLOYING and tasks > workers:
            raise UsageError(
                f"policy {policy} employs {tasks} workers a round, but there are {workers}:"
                f" expected --tasks of at most {workers}"
            )


def _variants(policies: Sequence[str], priors: Sequence[int]) -> list[Variant]:
    """Vary what the ATA policies have learned before the clock starts; the others begin with it."""
    made = []
    for policy in policies:
        learns = policy in ("ata", "ata-empirical")
        made += [Variant(policy, prior) for prior in (priors if learns else (0,))]
    return made
