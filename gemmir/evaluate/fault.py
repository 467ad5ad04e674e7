"""What can go wrong while a module runs.

| code    | meaning                                                                |
|---------|------------------------------------------------------------------------|
| GEM0901 | the module has no such function, or one that cannot be called          |
| GEM0902 | an array does not fit the type of its argument                         |
| GEM0903 | an op, or a form of it, has no meaning here                            |
| GEM0904 | an element outside a memref, or outside its buffer                     |
| GEM0905 | a buffer used after it was freed, freed twice, or never freed          |
| GEM0906 | a tile of a panel layout that does not lie in one panel                |
| GEM0907 | extents or strides that differ from those of a type or another operand |
| GEM0908 | a loop whose step is not positive                                      |
| GEM0909 | a write to an array that may only be read                              |
| GEM0910 | some threads of a block at what all of them must reach                 |
| GEM0911 | a wait for copies of which one belongs to no group                     |
| GEM0920 | all that run wait for each other                                       |
| GEM0921 | a sum used to which products are still added                           |
| GEM0922 | more arrivals than a phase has left                                    |
| GEM0923 | other bytes than a phase expects                                       |
| GEM0924 | an mbarrier that is not there, or not known to all                     |
| GEM0925 | shared memory touched while something else uses it                     |
| GEM0926 | what threads wrote, touched by others without a fence                  |
| GEM0927 | one thread, or a whole block, at what a warpgroup does                 |
| GEM0928 | something under way where a role or a block ends                       |
| GEM0929 | a block of a cluster that is not there                                 |
| GEM0930 | a parity that is neither 0 nor 1                                       |
"""

from __future__ import annotations

from xdsl.ir import Operation

from gemmir.errors import GemmirError


class EvaluationError(GemmirError):
    """A module did what no program may do; the message names the op and the numbers (GEM09xx)."""


class FaultError(Exception):
    """What went wrong, before it is known in which op: the frame turns it into an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def one_line(op: Operation) -> str:
    """The text of `op` without its regions."""
    return str(op).partition("\n")[0].removesuffix("{").rstrip()


def error_in(op: Operation, fault: FaultError) -> EvaluationError:
    """`fault` as the error that names `op`."""
    return EvaluationError(fault.code, f"{one_line(op)}: {fault.message}")
