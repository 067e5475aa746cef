"""Why a read of the shared memory is no hit."""

import enum


class Outcome(enum.Enum):
    """Returned by Segment.get() and Segment.mget() in place of a value."""

    MISS = enum.auto()  # Not there, or not a read that the shared memory can answer.
    SAMPLE = enum.auto()  # A hit that nearkey is to see: one in 1,024.
    OFF = enum.auto()  # Nothing is served now.
