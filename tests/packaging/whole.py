"""A contract of import-linter's: it has seen every folder of paceline, since what it has not seen it does not check.

An `__init__.py` makes a tool look for the rest of its package beside it alone. Importing paceline lengthens the list of
folders (see cli/paceline/__init__.py), and import-linter imports this module before it looks.
"""

from __future__ import annotations

from typing import Any

from importlinter import Contract, ContractCheck, fields, output

import paceline

FOLDERS = 5


class Whole(Contract):
    """Fails if a package that is named is not in the graph."""

    packages = fields.ListField(subfield=fields.StringField())

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        """Look for each package."""
        named: Any = self.packages
        missing = [package for package in named if package not in graph.modules]
        return ContractCheck(kept=not missing and len(paceline.__path__) >= FOLDERS, metadata={"missing": missing})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name what was not seen."""
        output.print_error(f"not seen: {', '.join(check.metadata['missing']) or 'some of the folders'}")
