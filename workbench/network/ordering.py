"""The order of layers: producers first, and groups that have a place in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from workbench.errors import NetworkError
from workbench.network.graph import Layer


def topological_order(layers: Mapping[str, Layer], place: str) -> list[Layer]:
    """Producers first, otherwise in the order of insertion. Raises NetworkError on a cycle."""
    waiting = {
        layer.name: len({t.producer.name for t in layer.inputs if t and t.producer})
        for layer in layers.values()
    }
    ready = [(x.place, x.name) for x in layers.values() if not waiting[x.name]]
    heapq.heapify(ready)
    order: list[Layer] = []
    while ready:
        layer = layers[heapq.heappop(ready)[1]]
        order.append(layer)
        for user in dict.fromkeys(u for t in layer.outputs for u in t.users):
            waiting[user.name] -= 1
            if not waiting[user.name]:
                heapq.heappush(ready, (user.place, user.name))
    if len(order) < len(layers):
        stuck = [n for n, k in waiting.items() if k > 0]
        raise NetworkError(f"layers form a cycle: {', '.join(stuck[:8])}", place=place)
    return order


def producers_first(group: Mapping[Layer, object]) -> tuple[Layer, ...]:
    """The group in an order that depends on its structure alone: depth first from its last."""
    inner = {t.producer for x in group for t in x.inputs if t is not None and t.producer in group}
    done: dict[Layer, None] = {}
    todo = [(x, False) for x in reversed([x for x in group if x not in inner])]
    while todo:
        x, ready = todo.pop()
        if x in done:
            continue
        if ready:
            done[x] = None
            continue
        todo.append((x, True))
        before = (t.producer for t in reversed(x.inputs) if t is not None)
        todo.extend((p, False) for p in before if p is not None and p in group and p not in done)
    return tuple(done)


def check_convex(group: Mapping[Layer, object], ordered: Callable[[], Sequence[Layer]]) -> None:
    """Raise NetworkError if a path leaves the group and comes back to it.

    ordered: all layers of the network in topological order; asked for only where a look at the
    group's last layers does not settle it.
    """
    users = {x: [u for t in x.outputs for u in t.users] for x in group}
    exits = [x for x in group if any(u not in group for u in users[x])]
    last_ones = [x for x in group if not any(u in group for u in users[x])]
    if len(last_ones) == 1 and exits in ([], last_ones):
        return  # A path that leaves by the only last layer and returns would be a cycle.
    outside = [u for x in exits for t in x.outputs for u in t.users if u not in group]
    position = {x.name: i for i, x in enumerate(ordered())}
    last = max(position[x.name] for x in group)
    seen: set[str] = set()
    while outside:
        x = outside.pop()
        if x.name in seen or position[x.name] > last:
            continue
        seen.add(x.name)
        for t in x.outputs:
            for u in t.users:
                if u in group:
                    raise NetworkError(
                        f"fusing would form a cycle through '{x.name}'", place=u.name
                    )
                outside.append(u)
