"""The network edits that a config asks for, made before their stage."""

from __future__ import annotations

from workbench.builder.state import BuildState
from workbench.errors import BuildError, NetworkError
from workbench.network import NetworkDefinition
from workbench.records import Stage


def edited(state: BuildState, stage: Stage) -> NetworkDefinition:
    """A copy of the network with the edits asked for before this stage.

    Raises BuildError naming the edit that does not fit.
    """
    network = state.network.clone()
    for before, edit in state.config.network_edits:
        if before is not stage:
            continue
        try:
            edit.apply(network)
        except NetworkError as e:
            raise BuildError(
                f"{edit} does not fit: {e}",
                place=stage.value,
                remedy="take the edit back, or ask for it before the stage that it is meant for",
            ) from None
    return network
