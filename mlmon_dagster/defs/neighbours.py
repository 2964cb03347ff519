"""The user's own assets beside ours, where they can be seen: their keys and their partitions.

Dagster loads no code location in which two assets have one key: with the keys known, only the model
concerned is left out. With the partitions known, the windows of a model line up with them. They
cannot be seen where they are merged after ours were made, in another code location, or where a
component's post-processing changes a key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Set

import dagster as dg

from mlmon_dagster.defs.assets import keys_of_model, refused_by_dagster
from mlmon_dagster.spec import Models, ModelSpec

Neighbours = Mapping[dg.AssetKey, dg.PartitionsDefinition | None]

_looking: set[int] = set()  # trees of components that are gone through at this moment


def find_neighbours(definitions: dg.Definitions) -> Neighbours:
    """Return the partitions of the assets that some definitions hold, by key; None without."""
    found: dict[dg.AssetKey, dg.PartitionsDefinition | None] = {}
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            found |= {spec.key: spec.partitions_def for spec in asset.specs}
        elif isinstance(asset, dg.AssetSpec | dg.SourceAsset):
            found[asset.key] = asset.partitions_def
    return found


def find_in_components(
    context: dg.ComponentLoadContext, ours: tuple[type[dg.Component], ...]
) -> Neighbours:
    """Return what else is in the folder of definitions that a component is in.

    What another component makes is kept by Dagster, and made once. A component that cannot be
    built says so when Dagster builds it.

    Args:
        context: Of the component that asks.
        ours: Kinds of components that are not gone into.
    """
    tree = context.component_tree
    if id(tree) in _looking:  # what we look at has asked for us
        return {}
    _looking.add(id(tree))
    found: dict[dg.AssetKey, dg.PartitionsDefinition | None] = {}
    try:
        for loc, declared in tree.find_root_decl().iterate_loc_component_decl_pairs():
            is_ours = any(issubclass(declared.component_type, kind) for kind in ours)
            if is_ours or list(declared.iterate_child_component_decls()):
                continue
            with contextlib.suppress(Exception):
                found |= find_neighbours(tree.build_defs_at_path(loc))
    finally:
        _looking.discard(id(tree))
    return found


def leave_out_taken(models: Models, taken: Set[dg.AssetKey]) -> Models:
    """Return the models without those of which a key is taken, which are then broken ones."""
    for spec in models.specs:
        if both := taken & set(keys_of_model(spec)):
            models = models.without(refused_by_dagster(models.folder, spec, _problem(spec, both)))
    return models


def _problem(spec: ModelSpec, both: Set[dg.AssetKey]) -> str:
    keys = ", ".join(sorted(key.to_user_string() for key in both))
    those = "assets of these keys" if len(both) > 1 else "an asset of this key"
    return (
        f"model '{spec.model}' and your own definitions both have {those}: {keys}. Write "
        f"key_prefix: monitoring into the model's declaration, so that its keys begin with "
        f"monitoring/{spec.model} (MLMON_KEY_PREFIX or build_definitions(key_prefix=...) does so "
        "for all models), or rename your asset. Until then this model is not monitored"
    )
