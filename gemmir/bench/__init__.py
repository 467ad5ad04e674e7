"""Races on this CPU: gemmir beside every library that is installed.

A coordinator (`race`) starts one process for each contestant (`worker`), with the environment that
its library needs, all on the same CPU, and lets them take turns. What each computes is compared
before it is timed. Nothing here is imported by the compiler.
"""
