"""What can go wrong while PTX runs.

| code    | meaning                                                                       |
|---------|-------------------------------------------------------------------------------|
| GEM1001 | text that is no PTX, or an instruction that is not known                      |
| GEM1002 | an access outside the memory that was given, or misaligned                    |
| GEM1003 | two threads at one byte without a barrier between, and one of them writes     |
| GEM1004 | a register or a byte of memory that is read and was never written             |
| GEM1005 | a barrier that not all threads of a block reach together                      |
| GEM1006 | more steps than the limit                                                     |
| GEM1007 | a launch that does not fit the kernel                                         |
| GEM1008 | bytes that an asynchronous copy has yet to fill or to read, read or written   |
| GEM1009 | an instruction of whole warps that some lanes of a warp do not reach          |
| GEM1010 | a copy of more bytes than its target has room for                             |
| GEM1011 | threads that wait for each other, or for what does not come                   |
| GEM1012 | an mbarrier that is none, with too many arrivals, or with too few at the end  |
| GEM1013 | a matrix descriptor or a tensor map that is not right                         |
| GEM1014 | what a proxy fence or a fence of mbarriers must stand before                  |
| GEM1015 | a register of a product in flight that is touched, or not fenced before it    |
| GEM1016 | a block that ends before what is in flight                                    |
| GEM1017 | registers of a thread that setmaxnreg cannot change so                        |
"""

from __future__ import annotations

from gemmir.errors import EmulationError


class PtxFault(EmulationError):  # noqa: N818
    """The kernel is wrong; the message names the block, the thread, the line and what it says."""


class FaultError(Exception):
    """What went wrong in lane `lane` of those that were active, before its place is known."""

    def __init__(self, code: str, message: str, lane: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.lane = lane
