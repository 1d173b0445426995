"""The picture of an artifact: its contracts, or its layers."""

from __future__ import annotations

from pathlib import Path

from sparsecc.artifact import Artifact
from sparsecc.backends.scu.files import has_program, read_program
from sparsecc.backends.scu.report_file import read_report
from sparsecc.contracts.settled import load_contracts
from sparsecc.plots import plot_contracts, plot_layers, verify_drawable

from .scu_parts import contracts_facts

CONTRACTS = "scu/contracts"
"""The folder of an artifact with its contracts and maps."""


def plot_artifact(artifact: Artifact, path: Path) -> None:
    """Draw the contracts of an artifact with a program for the SCU, with their maps if it has them; else its layers.

    Raises: CompileError (SCC075, SCC087, SCC125 the picture cannot be drawn; SCC126 there is nothing to draw; what
    reading the artifact raises).
    """
    verify_drawable(path)
    if not has_program(artifact):
        plot_layers(artifact.manifest, path)
        return
    facts = contracts_facts(read_report(artifact), read_program(artifact)[0])
    folder = artifact.path / CONTRACTS
    contracts, maps = load_contracts(folder) if folder.is_dir() else ((), {})
    plot_contracts(facts["edges"], path, contracts, maps)
