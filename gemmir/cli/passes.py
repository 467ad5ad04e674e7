"""gemmir passes: what schedules are made of."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from gemmir.cli.options import Json
from gemmir.cli.output import put, put_json

if TYPE_CHECKING:
    from xdsl.passes import ModulePass

EXAMPLES: Final = {
    "expand-math": ("expand-math",),
    "fuse-epilogue": ("fuse-epilogue",),
    "fuse-pack": ("fuse-pack{operand=b}",),
    "interchange": ("interchange{order=n,k,m}",),
    "otherwise": ("otherwise",),
    "parallelize": ("parallelize{loop=m over=cores}",),
    "part": ("part{loop=n at=96}",),
    "peel": ("peel{loop=k}",),
    "persist": ("persist{blocks=132}",),
    "pipeline": (
        "pipeline{loop=k stages=3 with=cp.async}",
        "pipeline{loop=k stages=4 with=tma specialize=true}",
        "pipeline{loop=k stages=2 with=dma}",
    ),
    "prefetch": ("prefetch{operand=b loop=n ahead=8}",),
    "prepack": ("prepack{operand=b}",),
    "promote": (
        "promote{operand=b to=l3 layout=panel:16}",
        "promote{operand=b to=l3 layout=panel:16 as=f32}",
        "promote{operand=b to=l2 layout=panel:32x4}",
        "promote{operand=b to=l2 layout=panel:32x2x32}",
        "promote{operand=c to=l2 layout=panel:32}",
        "promote{operand=b to=shared layout=swizzle:128}",
        "promote{operand=b to=vmem}",
    ),
    "split-k": ("split-k{factor=8 order=fixed}",),
    "stream-k": ("stream-k{blocks=132 slice=64}",),
    "swap-operands": ("swap-operands",),
    "tile": (
        "tile{loops=m,n sizes=64,64}",
        "tile{loops=n sizes=48 edges=halve least=16}",
        "tile{loops=m sizes=6 edges=even}",
        "tile{loops=m,n sizes=128,128 over=blocks}",
        "tile{loops=m,n sizes=512,512 over=grid}",
    ),
    "unsign": ("unsign",),
    "unroll": ("unroll{loop=k factor=4}",),
    "vectorize": (
        "vectorize{with=fma width=8}",
        "vectorize{with=fma width=8 along=k}",
        "vectorize{with=fma width=8 dealt=true}",
        "vectorize{with=dot width=16}",
        "vectorize{with=dot width=16 along=k}",
        "vectorize{with=amx width=16}",
        "vectorize{with=mma width=8}",
        "vectorize{with=wgmma}",
        "vectorize{with=mxu}",
    ),
    "version": ("version{loops=m most=8}", "version{loops=m sizes=1}"),
    "widen-reads": ("widen-reads{rows=3}",),
}
"""Uses of each pass: on a CPU, and where they differ, on a GPU and on a TPU."""


def passes(
    *,
    name: Annotated[
        str | None, typer.Argument(help="One pass; all by default.", metavar="PASS")
    ] = None,
    json: Json = False,
) -> None:
    """List the passes with their parameters: type, default, and examples."""
    from gemmir.passes import pass_class, pass_names

    known = pass_names()
    if name is not None and name.removeprefix("gemmir-") not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise typer.BadParameter(f"there is no pass {name!r}; did you mean {nearest}?")
    wanted = known if name is None else (name.removeprefix("gemmir-"),)
    found = [described(each, pass_class(each)) for each in wanted]
    if json:
        put_json(found)
    else:
        put("\n".join(_text(entry) for entry in found))


def described(name: str, made: type[ModulePass]) -> dict[str, Any]:
    """A pass as plain values, from its class."""
    hints = get_type_hints(made)
    return {
        "name": name,
        "xdsl_name": made.name,
        "doc": " ".join((made.__doc__ or "").split("\n\n")[0].split()),
        "parameters": [
            {
                "name": f.name.rstrip("_"),
                "type": _type_name(hints[f.name]),
                "required": f.default is dataclasses.MISSING,
                "default": None if f.default is dataclasses.MISSING else f.default,
            }
            for f in dataclasses.fields(made)
            if f.name != "name"
        ],
        "examples": list(EXAMPLES.get(name, (name,))),
    }


def _type_name(hint: object) -> str:
    """A type as the reader of a schedule knows it."""
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return {"int": "integer", "str": "word", "bool": "true or false"}.get(
            hint.__name__, hint.__name__
        )
    text = str(hint)
    for written, said in (
        ("tuple[str, ...]", "words"),
        ("tuple[int, ...]", "integers"),
        ("str | None", "word"),
        ("int | None", "integer"),
        ("tuple[int, ...] | None", "integers"),
    ):
        if text == written:
            return said
    return text


def _text(entry: dict[str, Any]) -> str:
    lines = [f"{entry['name']}: {entry['doc']}"]
    for p in entry["parameters"]:
        default = "required" if p["required"] else f"default {_shown(p['default'])}"
        lines.append(f"    {p['name']:<10}{p['type']}, {default}")
    first, *others = entry["examples"]
    return "\n".join([*lines, f"    e.g. {first}", *(f"         {e}" for e in others), ""])


def _shown(default: object) -> str:
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)
