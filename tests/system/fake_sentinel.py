"""A Sentinel that says what the test wants: the truth, a lie, nothing, or garbage.

It answers what clients of Sentinels ask (HELLO, AUTH, SUBSCRIBE, PING, ROLE, CLIENT, SENTINEL), in the
shapes of Valkey 8, with RESP2 and with RESP3.
"""

import socket
import threading

from fake_valkey import bulk
from processes import free_port

NO_SUCH_NAME = b"-ERR No such master with that name\r\n"


class Conversation:
    """One connection of a client: its protocol, whether it may ask, and what it hears."""

    def __init__(self, peer):
        self.peer = peer
        self.protocol = 2
        self.is_trusted = False
        self.channels = set()

    def send(self, data):
        try:
            self.peer.sendall(data)
        except OSError:
            pass

    def flat(self, fields):
        """Names and values: a map with RESP3."""
        header = b"%%%d\r\n" if self.protocol == 3 else b"*%d\r\n"
        count = len(fields) * (1 if self.protocol == 3 else 2)
        return header % count + b"".join(
            bulk(str(part).encode()) for field in fields.items() for part in field
        )

    def push(self, *parts):
        header = b">%d\r\n" if self.protocol == 3 else b"*%d\r\n"
        return header % len(parts) + b"".join(
            b":%d\r\n" % part if isinstance(part, int) else bulk(part) for part in parts
        )


class FakeSentinel:
    """Listens on 127.0.0.1.

    `names`: name -> (host, port) of the primary that it tells of.
    `epoch`, `others` ([(host, port)]) and `flags`: what MASTER and SENTINELS tell of it.
    `password`: what AUTH must bring, None for all are welcome.
    `answers`: (lower-case words of the command, as in "sentinel master" or "hello") -> bytes, or a
    function (arguments) -> bytes; None: no answer.
    `is_silent`: it accepts and reads, and answers nothing.
    """

    def __init__(self, names=None, *, epoch=0, others=(), port=None):
        self.names = dict(names or {})
        self.epoch = epoch
        self.others = list(others)
        self.flags = "master"
        self.password = None
        self.answers = {}
        self.is_silent = False
        self.received = []
        self.port = port if port is not None else free_port()
        self.conversations = []
        self._listener = None
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        """Gone, with all connections, until start()."""
        shut(self._listener)
        self.drop()

    def drop(self):
        """All connections end."""
        for each in self.conversations:
            shut(each.peer)
        self.conversations = []

    def publish(self, channel, message):
        """To all that have subscribed to the channel; how many that were."""
        hearers = [each for each in list(self.conversations) if channel in each.channels]
        for each in hearers:
            each.send(each.push(b"message", channel.encode(), message.encode()))
        return len(hearers)

    def switch(self, name, former, new):
        """A failover: what it names from now on, in a later epoch, told as a Sentinel tells it.
        Addresses are (host, port)."""
        self.names[name] = new
        self.epoch += 1
        message = " ".join(map(str, (name, *former, *new)))
        return self.publish("+switch-master", message)

    def asked(self, word):
        """How many commands with that word (of any case) it has got."""
        return sum(
            any(each.lower() == word.lower() for each in command) for command in list(self.received)
        )

    def _accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            conversation = Conversation(peer)
            self.conversations.append(conversation)
            threading.Thread(target=self._serve, args=(conversation,), daemon=True).start()

    def _serve(self, conversation):
        try:
            with conversation.peer.makefile("rb") as stream:
                while (command := read_command(stream)) is not None:
                    self.received.append(command)
                    reply = None if self.is_silent else self._answer(conversation, command)
                    if reply is not None:
                        conversation.send(reply)
        except (OSError, ValueError):
            pass
        finally:
            conversation.peer.close()

    def _answer(self, conversation, command):
        words = " ".join(command[: 2 if command[0].lower() == "sentinel" else 1]).lower()
        if words in self.answers:
            answer = self.answers[words]
            return answer(command) if callable(answer) else answer
        if words == "hello":
            return self._hello(conversation, command)
        if words == "auth":
            return self._authenticate(conversation, command[1:])
        if self.password is not None and not conversation.is_trusted:
            return b"-NOAUTH Authentication required.\r\n"
        if words in ("subscribe", "psubscribe"):
            return self._subscribe(conversation, words, command[1:])
        if words == "ping":
            is_hearer = conversation.channels and conversation.protocol == 2
            return conversation.push(b"pong", b"") if is_hearer else b"+PONG\r\n"
        if words == "role":
            names = b"".join(bulk(name.encode()) for name in self.names)
            return b"*2\r\n" + bulk(b"sentinel") + b"*%d\r\n" % len(self.names) + names
        if words == "client":
            return b"+OK\r\n"
        if words.startswith("sentinel ") and len(command) == 3:
            return self._of_name(conversation, words.split()[1], command[2])
        return f"-ERR unknown command '{command[0]}'\r\n".encode()

    def _hello(self, conversation, command):
        if "AUTH" in [word.upper() for word in command]:
            at = [word.upper() for word in command].index("AUTH")
            refused = self._authenticate(conversation, command[at + 1 : at + 3])
            if refused != b"+OK\r\n":
                return refused
        elif self.password is not None and not conversation.is_trusted:
            return b"-NOAUTH HELLO must be called with the client already authenticated\r\n"
        conversation.protocol = int(command[1]) if len(command) > 1 else conversation.protocol
        fields = {"server": "valkey", "version": "8.0.1", "mode": "sentinel"}
        return conversation.flat(fields)

    def _authenticate(self, conversation, words):
        if self.password is not None and words[-1] != self.password:
            return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        conversation.is_trusted = True
        return b"+OK\r\n"

    def _subscribe(self, conversation, word, channels):
        replies = []
        for channel in channels:
            conversation.channels.add(channel)
            count = len(conversation.channels)
            replies.append(conversation.push(word.encode(), channel.encode(), count))
        return b"".join(replies)

    def _of_name(self, conversation, question, name):
        known = self.names.get(name)
        if question == "get-master-addr-by-name":
            if known is None:
                return b"_\r\n" if conversation.protocol == 3 else b"*-1\r\n"
            return b"*2\r\n" + bulk(str(known[0]).encode()) + bulk(str(known[1]).encode())
        if known is None:
            return NO_SUCH_NAME
        if question == "master":
            fields = {"name": name, "ip": known[0], "port": known[1], "runid": "", "flags": self.flags,
                      "config-epoch": self.epoch, "num-slaves": 1,
                      "num-other-sentinels": len(self.others), "quorum": 2}  # fmt: skip
            return conversation.flat(fields)
        if question == "sentinels":
            rows = [
                conversation.flat(
                    {"name": f"{host}:{port}", "ip": host, "port": port, "flags": "sentinel"}
                )  # fmt: skip
                for host, port in self.others
            ]
            return b"*%d\r\n" % len(rows) + b"".join(rows)
        return b"*0\r\n"


def shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


def read_command(stream):
    """The words of one command; None at the end of the stream."""
    header = stream.readline()
    if not header.startswith(b"*"):
        return None
    words = []
    for _ in range(int(header[1:])):
        length = int(stream.readline()[1:])
        words.append(stream.read(length + 2)[:-2].decode(errors="replace"))
    return words
