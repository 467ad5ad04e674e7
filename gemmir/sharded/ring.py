"""Rings: what goes from device to device while the device multiplies what it has.

The devices along the axes of a collective form a ring in which each sends to both neighbours, so
that both directions of a link carry data. An operand goes round as chunks (`over_chunks`), sums as
pieces of c to which each device adds its part (`sum_pieces`); the one is the other backwards. Both
have as many products as devices, and while one is computed what the next one needs is under way.

These run on one device inside `jax.shard_map`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemmir import jax_modules
from gemmir.sharded.plan import Collective

lax = jax_modules.jax().lax

Array = Any
"""A `jax.Array` or a tracer."""

Multiply = Callable[[Any, Array, Array | None], Array]
"""A result with one more chunk: its index, the chunk, and the result so far."""

Product = Callable[[Any, Array | None], Array]
"""The sums of the piece of a device, given the index of the piece and what to add them to."""


def send(x: Array, ring: Collective, distance: int) -> Array:
    """What the device `distance` places behind sends to this one.

    `ppermute` of several axes counts devices in the order of the mesh, whatever the order in which
    it is given them (JAX 0.10), and `axis_index` in the order that it is given.
    """
    numbers = ring.numbers
    pairs = [(numbers[i], numbers[(i + distance) % ring.size]) for i in range(ring.size)]
    return lax.ppermute(x, tuple(axis for axis, _ in ring.extents), pairs)


def place(ring: Collective, distance: int = 0) -> Any:
    """The index of the device `distance` places ahead."""
    return lax.rem(lax.axis_index(ring.axes) + distance % ring.size, ring.size)


def over_chunks(multiply: Multiply, own: Array, ring: Collective) -> Array:
    """What `multiply` makes of the chunks of all devices, the own one first, then from both sides.

        device  0 1 2 3 4          chunk after hops  0    1    2
        ring    a b c d e          device 2          c    b d  a e

    A hop begins once what came before the last one is multiplied, and so its transfers overlap the
    products of what the last one brought. XLA would else wait for the first chunks at once, where
    it finds that transfers take longer than products.
    """
    behind = ahead = own
    ready = [(place(ring), own)]
    c: Array = None
    for hop in range(1, ring.size // 2 + 1):
        behind = send(behind, ring, 1)
        coming = [(place(ring, -hop), behind)]
        if 2 * hop < ring.size:
            ahead = send(ahead, ring, -1)
            coming.append((place(ring, hop), ahead))
        for index, chunk in ready:
            c = multiply(index, chunk, c)
        behind, ahead, c = lax.optimization_barrier((behind, ahead, c))
        ready = coming
    for index, chunk in ready:
        c = multiply(index, chunk, c)
    return c


def sum_pieces(product: Product, ring: Collective) -> Array:
    """The sum over all devices of this device's piece.

    The sums of a piece begin on the devices that are the furthest from where it is to lie, one on
    each side, and come nearer; each device on the way adds its own. The two and the device's own
    are added at the end. While the sums from one side are under way those from the other are
    computed.
    """
    behind = ahead = None
    far = ring.size // 2
    for hop in range(far, 0, -1):
        behind = send(product(place(ring, hop), behind), ring, 1)
        if hop <= ring.size - 1 - far:
            ahead = send(product(place(ring, -hop), ahead), ring, -1)
    total = product(place(ring), None) + behind
    return total if ahead is None else total + ahead
