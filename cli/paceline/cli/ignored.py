"""Says which settings somebody gave in vain: the chosen policy does not look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paceline.cli.commands import CommandSettings
from paceline.cli.configuration import Given
from paceline.cli.options import options_of
from paceline.coordination.policies import POLICY_NAMES, PolicyOptions, options_read

# Settings that policies know by another name.
_NAMES = {"partition": "parts"}


def given_in_vain(command: str, given: Mapping[str, Given], settings: CommandSettings) -> Iterator[str]:
    """Give a line for each setting that the policy does not look at; of a resumed run nobody is told again."""
    policy = getattr(settings, "policy", None)
    if policy is None or "resume" in given:
        return
    read = options_read(policy)
    for option in options_of(command):
        name = _NAMES.get(option.field, option.field)
        if option.field not in given or name not in PolicyOptions.__dataclass_fields__ or name in read | {"tasks"}:
            continue
        readers = [other for other in POLICY_NAMES if name in options_read(other)]
        who = f"{', '.join(readers[:-1])} and {readers[-1]} do" if len(readers) > 1 else f"{readers[0]} does"
        yield f"{given[option.field].subject} is of no use: policy {policy} does not look at it; {who}"
