"""Executes PTX text: the threads of a block as NumPy lanes, with every access checked.

It knows the instructions of the PTX ISA that `program.INSTRUCTIONS` lists; any other, and any form
that is not known, is an error and never skipped. It finds accesses out of bounds or misaligned,
races, reads of what was never written or of what an asynchronous copy has yet to fill, barriers
that not all threads reach, and instructions of a warp that some lanes do not reach; of Hopper's
mbarriers, tensor maps, products and clusters, waits, fences, bytes and arrivals that are missing.
It counts instructions, bank conflicts and sectors. It does not say how long anything takes.
"""

from gemmir.backends.ptx.emulator.faults import PtxFault
from gemmir.backends.ptx.emulator.report import Access, Report
from gemmir.backends.ptx.emulator.run import emulate

__all__ = ["Access", "PtxFault", "Report", "emulate"]
