"""A contract of import-linter for packages that nobody lists: those that a package holds never import each other."""

from __future__ import annotations

from typing import Any

from importlinter.contracts.independence import IndependenceContract
from importlinter.domain import fields
from importlinter.domain.contract import ContractCheck
from importlinter.domain.imports import Module, ModuleExpression


class PackagesApart(IndependenceContract):
    """Keeps the packages of ``container`` independent of each other, whichever there are.

    Configuration options:
        container: the package that holds them; its modules that are no packages are free.
    """

    type_name = "packages_apart"

    container = fields.ModuleField()
    modules = fields.SetField(subfield=fields.ModuleExpressionField(), required=False)

    def check(self, graph: Any, verbose: bool) -> ContractCheck:  # noqa: FBT001 - the base class's signature
        """Find the packages, and check them."""
        container: Module = self.container  # type: ignore[assignment] # a field holds its value at run time
        packages = {child for child in graph.find_children(container.name) if graph.find_children(child)}
        self.modules = {ModuleExpression(package) for package in packages}  # type: ignore[assignment] # as above
        return super().check(graph, verbose)
