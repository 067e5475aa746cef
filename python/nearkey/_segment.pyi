"""nearkey._segment, a C extension over libnearkey-client (python/nearkey/_segment.c)."""

from typing import Any, Dict, List, Optional, Tuple, Union

from nearkey._outcome import Outcome
from nearkey._shared import NoSegment

class Segment:
    """The shared memory of one nearkey socket, as one client reads it."""

    def __new__(
        cls,
        url: str,
        callbacks: Dict[Any, Any],
        outcomes: Tuple[Outcome, Outcome, Outcome],
        decodes: bool,
        errors: str,
        timeout_ms: int,
        sample_every: int,
    ) -> "Segment":
        """Opens nothing yet: the first read is OFF, and refresh() opens it.

        `url` is unix:///PATH?db=N. `callbacks` is the client's dictionary, in which GET or MGET
        mean that every read is MISS. `outcomes` are MISS, SAMPLE and OFF. `timeout_ms` is of
        refresh(); 0: the library's own. One hit in `sample_every` is SAMPLE.
        """
    def get(self, name: Any) -> Union[bytes, str, None, Outcome]:
        """The value as redis-py returns it (None: no such key), or why it is no hit."""
    def mget(self, names: List[Any]) -> Union[List[Union[bytes, str, None]], Outcome]:
        """The values of all keys as they were at one moment, or why they are no hits."""
    def take_hits(self) -> int:
        """How many hits nearkey was not told of yet, 1 to 1,000,000; now it is."""
    def claim_refresh(self) -> bool:
        """True once a second at most: who gets it calls refresh()."""
    def refresh(self) -> bool:
        """Asks nearkey for the segment; may block for `timeout_ms`. True: there is one now.

        Raises OSError where no segment can ever be opened (EINVAL: the path can't be one).
        """
    def info(self) -> Tuple[int, int, int, int, int, int, int, Optional[str]]:
        """The fields of nearkey.SharedMemoryInfo."""

class Reader:
    """A client whose get() asks a Segment first, without a Python frame for a hit."""

    _segment: Union[Segment, NoSegment]

    def get(self, name: Any) -> Any:
        """A hit of `_segment`; else _get_elsewhere(name, outcome), which its subclass has.

        The outcome is None where `_segment` is no Segment.
        """
