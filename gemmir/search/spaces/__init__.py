"""Schedules with holes: what may stand in them, and which points of them are legal."""

from gemmir.search.spaces.bound import BoundSpace
from gemmir.search.spaces.default import default_space
from gemmir.search.spaces.legality import Census, Refusal
from gemmir.search.spaces.space import Space
from gemmir.search.spaces.walk import Point

__all__ = ["BoundSpace", "Census", "Point", "Refusal", "Space", "default_space"]
