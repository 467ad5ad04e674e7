"""Executes PTX text: the threads of a block as NumPy lanes, with every access checked.

It knows the instructions of the PTX ISA that `arithmetic`, `memory` and `control` list; any other
is an error and never skipped. It finds accesses out of bounds or misaligned, races, reads of what
was never written, and barriers that not all threads reach; it counts instructions, bank conflicts
and sectors. It does not say how long anything takes.
"""

from gemmir.backends.ptx.emulator.faults import PtxFault
from gemmir.backends.ptx.emulator.run import Access, Report, emulate

__all__ = ["Access", "PtxFault", "Report", "emulate"]
