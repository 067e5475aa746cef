"""What nearkey.Redis and nearkey.asyncio.Redis have in common: which clients may read the shared
memory, and what ends it.

The rule: a hit is what the same command would be answered with over the client's socket. So a
client whose socket may be in another state (user, database, transaction, tracking) reads nothing,
and stays so for good.
"""

import codecs
import os
from functools import lru_cache
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import quote

from nearkey._outcome import Outcome

try:
    from nearkey._segment import Reader, Segment

    WHY_NO_EXTENSION = ""
except ImportError as error:  # Nothing but speed is lost.

    class Reader:  # type: ignore[no-redef]
        """Its clients' get() is redis-py's."""

    WHY_NO_EXTENSION = f"the extension nearkey._segment can't be loaded: {error}"

MISS, SAMPLE, OFF = Outcome.MISS, Outcome.SAMPLE, Outcome.OFF

# An option of execute_command(): this read is a sample, and nearkey is told of the hits before it.
SAMPLED = "nearkey_sampled"

# One hit in so many goes over the socket, where nearkey sees it. Tests set another.
SAMPLE_EVERY = 1024

DATABASES_MAX = 65536

# These leave the connection that carries them in another state, if only in a tunnel of nearkey's,
# where a reply is not held back until what it wrote is void. The words are the subcommands that do;
# none: the command itself does.
STATE_OF_CONNECTION: Dict[str, Tuple[str, ...]] = {
    "ASKING": (),
    "AUTH": (),
    "CLIENT": (
        "CACHING",
        "CAPA",
        "GETREDIR",
        "ID",
        "IMPORT-SOURCE",
        "INFO",
        "NO-EVICT",
        "NO-TOUCH",
        "REPLY",
        "TRACKING",
        "TRACKINGINFO",
    ),
    "HELLO": (),
    "MONITOR": (),
    "NEARKEY": ("CACHE",),
    "PSUBSCRIBE": (),
    "PSYNC": (),
    "PUNSUBSCRIBE": (),
    "READONLY": (),
    "READWRITE": (),
    "REPLCONF": (),
    "RESET": (),
    "SCRIPT": ("DEBUG",),
    "SELECT": (),
    "SSUBSCRIBE": (),
    "SUBSCRIBE": (),
    "SUNSUBSCRIBE": (),
    "SYNC": (),
    "UNSUBSCRIBE": (),
}
# A pipeline ends these before it gives its connection back.
STATE_OF_TRANSACTION: Dict[str, Tuple[str, ...]] = {"MULTI": (), "WATCH": ()}
STATE_OF_CLIENT = {**STATE_OF_CONNECTION, **STATE_OF_TRANSACTION}

# Settings of a pool with which a connection's state, or the form of its replies, is not known.
FOREIGN_SETTINGS = {
    "username": "the client has a user",
    "password": "the client has a password",
    "credential_provider": "the client has credentials",
    "redis_connect_func": "a function of the application's prepares the connections",
    "encoder_class": "the client has an encoder of its own",
    "parser_class": "the client has a parser of its own",
}
# The other ones that a segment was opened for.
SETTINGS = ("db", "decode_responses", "encoding", "encoding_errors", "path")

# A hit calls none of these. Who overrides or replaces one may change commands or replies there.
METHODS_OF_CLIENT = (
    "execute_command",
    "_execute_command",
    "_send_command_parse_response",
    "parse_response",
)
METHODS_OF_POOL = ("get_connection", "make_connection")
REPLACEABLE = {*METHODS_OF_CLIENT, "connection_pool", "response_callbacks"}

# The class attribute with which a class says that its overrides change no command and no reply.
ONLY_ADD = "overrides_only_add"


class SharedMemoryInfo(NamedTuple):
    """How a client's reads of the shared memory went, since it was opened."""

    hits: int
    misses: int
    stale: int
    off: int
    samples: int
    incarnation: int  # Which segment; 0: none.
    clock_ns: int  # How long reading the clock takes here.
    why_off: Optional[str]  # None: it is on.


class NoSegment:
    """Stands where a client can't have a Segment: every read is a miss."""

    def __init__(self, why: str) -> None:
        self.why = why

    def get(self, name: Any) -> Outcome:
        return MISS

    def mget(self, names: List[Any]) -> Outcome:
        return MISS

    def take_hits(self) -> int:
        return 1

    def claim_refresh(self) -> bool:
        return False

    def refresh(self) -> bool:
        return False

    def info(self) -> Tuple[int, int, int, int, int, int, int, Optional[str]]:
        return (0, 0, 0, 0, 0, 0, 0, self.why)


class SharedMemory:
    """Mixed into a client: its Segment, and when it loses it."""

    # Set by each __init__(), not here: CPython finds an attribute sooner that its class has not.
    _segment: Union["Segment", NoSegment]
    _opened_for: Tuple[Any, ...]  # What the pool's settings were.
    _unix_connection: type  # The class of connections that hits stand for.

    def __setattr__(self, name: str, value: Any) -> None:
        if name in REPLACEABLE and not vars(self).get(ONLY_ADD):
            self._leave_segment_if_any(f"the client's {name} was replaced")
        super().__setattr__(name, value)

    def shared_memory_info(self) -> SharedMemoryInfo:
        """Counts of this client's reads of nearkey's shared memory, or why it does not read it."""
        return SharedMemoryInfo(*self._segment.info())

    def _open_segment(self) -> None:
        why = why_no_segment(self)
        if not why:
            self._opened_for = settings_of(self)
        self._segment = NoSegment(why) if why else segment_of(self)

    def _leave_segment(self, why: str) -> None:
        """For good. Another thread's read may still be using the Segment, and keeps it."""
        self._segment = NoSegment(why)

    def _leave_segment_if_any(self, why: str) -> None:
        if not isinstance(self._segment, NoSegment):
            self._leave_segment(why)

    def _check_settings(self) -> None:
        """Nothing tells of them: so once in a while."""
        if not isinstance(self._segment, NoSegment) and settings_of(self) != self._opened_for:
            self._leave_segment("the settings of the client's pool were changed")

    def _refresh_segment(self) -> None:
        self._check_settings()
        try:
            self._segment.refresh()
        except OSError as error:
            self._leave_segment(f"the shared memory can't be opened: {error}")

    def _note_command(self, args: Tuple[Any, ...], state: Dict[str, Tuple[str, ...]]) -> None:
        """Called before the command is sent, and so before anything shows its effect."""
        if changes_state(args, state):
            self._leave_segment_if_any(
                "a command of the application's has changed a connection's state"
            )


@lru_cache(maxsize=1024)
def words_of(name: Union[str, bytes]) -> List[str]:
    """The name of a command as redis-py splits it, in capitals."""
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    return text.upper().split()


def changes_state(args: Tuple[Any, ...], state: Dict[str, Tuple[str, ...]]) -> bool:
    """True if a command is one of `state`, or if its name can't be read."""
    name = args[0] if args else ""
    if not isinstance(name, (str, bytes)):
        return True
    words = words_of(name)
    subcommands = state.get(words[0]) if words else None
    if not subcommands:
        return subcommands is not None
    words = words + [word for arg in args[1:2] for word in words_of(argument_text(arg))]
    return len(words) < 2 or words[1] in subcommands


def argument_text(argument: Any) -> str:
    if isinstance(argument, (bytes, bytearray, memoryview)):
        return bytes(argument).decode("ascii", "replace")
    return str(argument)


def is_path(host: Any) -> bool:
    """True if what stands where redis-py has the host is the path of a Unix socket."""
    return isinstance(host, str) and host.startswith("/")


def settings_of(client: Any) -> Tuple[Any, ...]:
    """What a segment is opened for; another one would have to be opened for others."""
    pool = client.connection_pool
    settings = pool.connection_kwargs
    names = (*FOREIGN_SETTINGS, *SETTINGS)
    return (pool.connection_class, *[settings.get(name) for name in names])


def changing_class(cls: type, methods: Tuple[str, ...]) -> Optional[type]:
    """The application's that overrides one of the methods and does not say that it only adds.

    Each class says so for itself: a class that is derived from it may do more.
    """
    for each in cls.__mro__:
        own = vars(each)
        is_the_applications = each.__module__.partition(".")[0] not in ("nearkey", "redis")
        if is_the_applications and not own.get(ONLY_ADD) and not own.keys().isdisjoint(methods):
            return each
    return None


def why_no_segment(client: Any) -> str:
    """An empty text if the client may read the shared memory."""
    pool = client.connection_pool
    settings = pool.connection_kwargs
    if WHY_NO_EXTENSION:
        return WHY_NO_EXTENSION
    if getattr(pool, "connection_class", None) is not client._unix_connection:
        return "the client does not use a plain Unix socket"
    for cls, methods in ((type(client), METHODS_OF_CLIENT), (type(pool), METHODS_OF_POOL)):
        changing = changing_class(cls, methods)
        if changing is not None:
            return f"{changing.__qualname__} overrides what reads go through ({ONLY_ADD})"
    if client.connection is not None or getattr(client, "single_connection_client", False):
        return "the client has a connection of its own (single_connection_client)"
    if getattr(pool, "cache", None) is not None or getattr(client, "cache", None) is not None:
        return "the client has a cache of its own"
    for name, why in FOREIGN_SETTINGS.items():
        if settings.get(name) is not None:
            return why
    return why_no_encoding(settings) or why_no_url(settings)


def why_no_encoding(settings: Dict[str, Any]) -> str:
    try:
        if codecs.lookup(settings.get("encoding", "utf-8")).name == "utf-8":
            return ""
    except (LookupError, TypeError):
        pass
    return "the client's encoding is not UTF-8"


def why_no_url(settings: Dict[str, Any]) -> str:
    try:
        database = int(settings.get("db") or 0)
        path = os.fsdecode(settings["path"])
    except (KeyError, TypeError, ValueError):
        return "the client's path or database can't be read"
    if not 0 <= database < DATABASES_MAX:
        return "no such database"
    return "" if path and not path.startswith("\0") else "the client's socket has no path"


def url_of(settings: Dict[str, Any]) -> str:
    path = os.path.abspath(os.fsdecode(settings["path"]))
    database = int(settings.get("db") or 0)
    # redis-py sends no SELECT 0: then it is the listener's.
    return f"unix://{quote(os.fsencode(path))}" + (f"?db={database}" if database else "")


def timeout_ms_of(settings: Dict[str, Any]) -> int:
    """The shorter of the client's own timeouts; 0: it has none."""
    names = ("socket_connect_timeout", "socket_timeout")
    seconds = [settings[name] for name in names if settings.get(name)]
    return max(1, int(min(seconds) * 1000)) if seconds else 0


def segment_of(client: Any) -> "Segment":
    settings = client.connection_pool.connection_kwargs
    return Segment(
        url_of(settings),
        client.response_callbacks,
        (MISS, SAMPLE, OFF),
        bool(settings.get("decode_responses")),
        settings.get("encoding_errors") or "strict",
        timeout_ms_of(settings),
        SAMPLE_EVERY,
    )
