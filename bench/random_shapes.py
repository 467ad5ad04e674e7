"""A suite of shapes drawn at random, for `gemmir bench --suite`: chosen shapes hide holes.

    python bench/random_shapes.py --seed 7 --count 50 > random.toml
    gemmir bench --suite random.toml --quick

*Layers* are rows by a layer of a network, *columns* have a layer's size of rows, and *any* sizes
are any numbers, each power of two as likely. Problems that take long or fill the memory are left
out.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from typing import Final

LAYERS: Final = (
    *(64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096),
    *(5120, 8192, 11008, 16384),
)
"""Widths of layers of published networks, and what lies between them."""

ROWS: Final = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 100, 128, 200, 256, 384, 512, 1000),
    *(1024, 2048, 4096, 8192),
)
"""How many rows a layer is given at once: tokens, images, or a batch of them."""

FLOPS: Final = (2e4, 6e9)
"""Between these a timing takes 0.1 us to 30 ms."""

MOST_ELEMENTS: Final = 75_000_000
"""Of A, B and C together: 300 MB in f32."""

ANY: Final = (2.0, 11.5)
"""Powers of two between which sizes are drawn."""

MOST_SHAPES: Final = 2000
"""Of one suite: there are some thousands of each kind, none of which is drawn twice."""

Shape = tuple[int, int, int]


def layer(draw: random.Random) -> Shape:
    return draw.choice(ROWS), draw.choice(LAYERS), draw.choice(LAYERS)


def column(draw: random.Random) -> Shape:
    rows, columns, depth = layer(draw)
    return columns, rows, depth


def any_size(draw: random.Random) -> Shape:
    m, n, k = (int(2 ** draw.uniform(*ANY)) for _ in range(3))
    return m, n, k


KINDS: Final[dict[str, tuple[Callable[[random.Random], Shape], float]]] = {
    "layers": (layer, 0.5),
    "columns": (column, 0.25),
    "any": (any_size, 0.25),
}
"""How each kind is drawn, and its share of all problems."""


def drawn(seed: int, count: int) -> Iterator[tuple[str, list[Shape]]]:
    """Of each kind, by its name, as many different shapes as its share of `count` is."""
    draw = random.Random(seed)
    for name, (kind, share) in KINDS.items():
        found: list[Shape] = []
        while len(found) < max(round(count * share), 1):
            m, n, k = shape = kind(draw)
            fits = m * n + n * k + m * k <= MOST_ELEMENTS
            if shape not in found and fits and FLOPS[0] < 2 * m * n * k < FLOPS[1]:
                found.append(shape)
        yield name, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw a suite of shapes at random for `gemmir bench --suite`."
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--count", type=int, default=100, help="of all shapes (default: 100)")
    arguments = parser.parse_args()
    if not 1 <= arguments.count <= MOST_SHAPES:
        parser.error(f"--count is {arguments.count}; give 1 to {MOST_SHAPES}")
    for name, shapes in drawn(arguments.seed, arguments.count):
        lines = ",\n".join(f'  "{m}x{n}x{k}"' for m, n, k in shapes)
        print(f'[[class]]\nname = "{name}"\nshapes = [\n{lines},\n]\n')


if __name__ == "__main__":
    main()
