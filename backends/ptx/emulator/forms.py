"""The forms of instructions that are known: modifiers and type, as the PTX ISA's syntax lists them.

Of each instruction these are the forms that are run here, and no form that the PTX ISA has not.
Instructions with rules of their own, such as cvt and mma, check themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import refuse

_WHOLE: Final = "[us](16|32|64)"
_BITS: Final = "b(16|32|64)"
_ANY: Final = "([bus](16|32|64)|f32|f64)"

_SUM: Final = (
    f"{_WHOLE}|(rn.)?(ftz.)?(sat.)?f32|(rn.)?f64|(rn.)?(ftz.)?(sat.)?f16(x2)?|(rn.)?bf16(x2)?"
    "|(rn.)?(ftz.)?f32x2"
)
_PRODUCT: Final = f"(lo|hi).{_WHOLE}|wide.[us](16|32)"
_LEAST: Final = f"{_WHOLE}|(ftz.)?(NaN.)?f32|f64|(ftz.)?(NaN.)?f16(x2)?|(NaN.)?bf16(x2)?"
_ROOT: Final = "approx.(ftz.)?f32|rn.(ftz.)?f32|rn.f64"
_SIGN: Final = "s(16|32|64)|(ftz.)?f32|f64|(ftz.)?f16(x2)?|bf16(x2)?"
_FAST: Final = "approx.(ftz.)?f32"
_LOGIC: Final = f"pred|{_BITS}"

_ORDERED: Final = "eq|ne|lt|le|gt|ge"
_FLOATS: Final = f"{_ORDERED}|equ|neu|ltu|leu|gtu|geu|num|nan"


def _compared(between: str, narrow: str, other: str) -> str:
    """A comparison, what may stand behind it, and the type that is compared.

    `narrow` floats may be flushed there, `other` ones may not.
    """
    return "|".join(
        (
            f"(eq|ne).{between}{_BITS}",
            f"({_ORDERED}|lo|ls|hi|hs).{between}u(16|32|64)",
            f"({_ORDERED}).{between}s(16|32|64)",
            f"({_FLOATS}).{between.replace('FTZ', '(ftz.)?')}({narrow})",
            f"({_FLOATS}).{between}({other})",
        )
    ).replace("FTZ", "")


_SCOPE: Final = "(cta|cluster|gpu|sys)."
_SHARED: Final = "shared(::cta)?."
_TYPE: Final = "(v[24].)?([bus](8|16|32|64)|f32|f64)"
_EVICT: Final = "L1::(evict_normal|evict_unchanged|evict_first|evict_last|no_allocate)."
_PREFETCH: Final = "(L2::(64|128|256)B.)?"

_LOAD: Final = "|".join(
    (
        "param(::entry)?.([bus](8|16|32|64)|f32|f64)",
        f"(weak.)?(global.)?((ca|cg|cs|lu|cv).|{_EVICT})?{_PREFETCH}{_TYPE}",
        f"(weak.)?{_SHARED}((ca|cg|cs|lu|cv).)?{_TYPE}",
        f"global.((ca|cg|cs).)?nc.({_EVICT})?{_PREFETCH}{_TYPE}",
        f"(volatile|(relaxed|acquire).{_SCOPE[:-1]}).(global.|{_SHARED})?{_TYPE}",
    )
)
_STORE: Final = "|".join(
    (
        f"(weak.)?(global.)?((wb|cg|cs|wt).|{_EVICT})?{_TYPE}",
        f"(weak.)?{_SHARED}((wb|cg|cs|wt).)?{_TYPE}",
        f"(volatile|(relaxed|release).{_SCOPE[:-1]}).(global.|{_SHARED})?{_TYPE}",
    )
)

_FORMS: Final[Mapping[str, str]] = {
    "abs": _SIGN,
    "add": _SUM,
    "and": _LOGIC,
    "bfe": "[us](32|64)",
    "bfi": "b(32|64)",
    "brev": "b(32|64)",
    "clz": "b(32|64)",
    "cnot": _BITS,
    "copysign": "f32|f64",
    "cos": _FAST,
    "cvta": "(to.)?(global|shared(::cta)?|param).(u64|u32)",
    "div": f"{_WHOLE}|(approx|full|rn).(ftz.)?f32|rn.f64",
    "ex2": f"{_FAST}|approx.f16(x2)?|approx.ftz.bf16(x2)?",
    "fma": "rn.(ftz.)?(sat.)?(f32|f16(x2)?)|rn.(f64|bf16(x2)?)|rn.(ftz.)?f32x2",
    "ld": _LOAD,
    "lg2": _FAST,
    "lop3": "b32",
    "mad": f"{_PRODUCT}|rn.(ftz.)?(sat.)?f32|rn.f64",
    "mad24": "(lo|hi).[us]32",
    "max": _LEAST,
    "min": _LEAST,
    "mov": f"pred|{_ANY}",
    "mul": f"{_PRODUCT}|{_SUM.removeprefix(_WHOLE + '|')}",
    "mul24": "(lo|hi).[us]32",
    "neg": _SIGN,
    "not": _LOGIC,
    "or": _LOGIC,
    "popc": "b(32|64)",
    "prmt": "b32",
    "rcp": _ROOT,
    "rem": _WHOLE,
    "rsqrt": f"{_FAST}|approx.f64",
    "selp": _ANY,
    "set": _compared("FTZ(u32|s32|f32).", "f32", "f64"),
    "setp": _compared("((and|or|xor).)?FTZ", "f32|f16", "f64|bf16"),
    "shf": "[lr].(wrap|clamp).b32",
    "shl": _BITS,
    "shr": f"{_BITS}|{_WHOLE}",
    "sin": _FAST,
    "sqrt": _ROOT,
    "st": _STORE,
    "sub": _SUM,
    "tanh": "approx.(f32|f16(x2)?|bf16(x2)?)",
    "xor": _LOGIC,
}

FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(form.replace(".", r"\.")) for name, form in _FORMS.items()
}
"""What may follow the first part of the name of an instruction."""


def require_form(instruction: Instruction) -> None:
    """`FaultError` GEM1001 for a form that is not known."""
    form = FORMS.get(instruction.name[0])
    if form is not None and form.fullmatch(".".join(instruction.name[1:])) is None:
        raise refuse(instruction)
