"""What goes over the wire: commands as bytes, replies cut into frames."""

import re

SIMPLE = b"+-:_#,("
BLOBS = b"$=!"
AGGREGATES = b"*~>"
CONFIRMATIONS = re.compile(rb">\d+\r\n\$\d+\r\n[ps]?(un)?subscribe\r\n")


def encode(args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(parts)


PLAIN = re.compile(rb"[A-Za-z0-9_:*.+-]+\Z")
ESCAPES = {8: b"\\b", 7: b"\\a", 9: b"\\t", 10: b"\\n", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}


def quote(arg):
    """One argument of an inline command."""
    if PLAIN.match(arg):
        return arg
    if b"'" not in arg and b"\\" not in arg and all(32 <= byte < 127 for byte in arg):
        return b"'" + arg + b"'"
    escaped = (
        ESCAPES.get(b) or (bytes([b]) if 32 <= b < 127 else b"\\x%02x" % b) for b in arg
    )
    return b'"' + b"".join(escaped) + b'"'


def encode_inline(args, newline=b"\r\n"):
    return b" ".join(quote(arg) for arg in args) + newline


def frame_end(data, start):
    """The end of the reply that starts there, or -1 if it is not complete."""
    at, pending, size = start, 1, len(data)
    while pending:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return -1
        kind = data[at]
        if kind in SIMPLE:
            at = line_end + 2
            pending -= 1
        elif kind in BLOBS:
            length = int(data[at + 1 : line_end])
            at = line_end + 2 + (length + 2 if length >= 0 else 0)
            if at > size:
                return -1
            pending -= 1
        else:
            count = max(int(data[at + 1 : line_end]), 0)
            if kind == 0x3E and at > start and not CONFIRMATIONS.match(data, at):
                pending += count  # Redis 7.0 puts a push between the elements of EXEC's array.
            elif kind in AGGREGATES:
                pending += count - 1
            elif kind == 0x25:  # A map.
                pending += 2 * count - 1
            elif kind == 0x7C:  # An attribute, and then the reply that it describes.
                pending += 2 * count
            else:
                raise ValueError(f"not a reply: {bytes(data[at:at + 40])!r}")
            at = line_end + 2
    return at


def without_texts(reply):
    """The reply with a sign in the place of each text, however binary: its shape."""
    parts, at = [], 0
    while at < len(reply):
        line_end = reply.index(b"\r\n", at)
        if reply[at] in BLOBS and reply[at + 1 : at + 2] != b"-":
            parts.append(b"$#\r\n")
            at = line_end + 4 + int(reply[at + 1 : line_end])
        else:
            parts.append(b",#\r\n" if reply[at] == 0x2C else reply[at : line_end + 2])
            at = line_end + 2
    return b"".join(parts)


def split_frames(data):
    """All complete replies, and what is left."""
    frames, at = [], 0
    try:
        while at < len(data):
            end = frame_end(data, at)
            if end < 0:
                break
            frames.append(bytes(data[at:end]))
            at = end
    except ValueError:
        pass
    return frames, bytes(data[at:])


def elements(frame):
    """The elements of an array, each as bytes."""
    return split_frames(frame[frame.index(b"\r\n") + 2 :])[0]


def parsed(reply, put_together):
    """The reply with each aggregate as put_together(head, parts) makes it, the innermost first."""
    if reply[:1] not in (b"*", b"~", b">", b"%"):
        return reply
    head = reply[: reply.index(b"\r\n") + 2]
    return put_together(head, [parsed(part, put_together) for part in elements(reply)])


def is_out_of_band(frame):
    """A push that is not the answer to a command."""
    return frame[:1] == b">" and not CONFIRMATIONS.match(frame)


def align(commands, frames):
    """Says which frames answer which command: a list of lists, or None if that can't be said.
    What comes out of band counts to the command before it."""
    answers, at, silence, in_multi = [], 0, None, False
    for args in commands:
        name = args[0].upper() if args else b""
        if name == b"QUIT" and at == len(frames) and answers:
            answers.append([])  # Behind another QUIT.
            continue
        before, silence = silence, silence_after(name, args, silence, in_multi)
        if silence is not None and name != b"RESET":
            answers.append([])
            silence = None if silence == b"NEXT" and before == b"NEXT" else silence
            continue
        first = frames[at] if at < len(frames) else b"-"
        count = frames_of(name, args, frames, at)
        if name == b"MULTI" and first == b"+OK\r\n":
            in_multi = True
        elif name in (b"EXEC", b"DISCARD", b"RESET"):
            in_multi = False
        taken = []
        while at < len(frames) and (count > 0 or is_out_of_band(frames[at])):
            count -= not is_out_of_band(frames[at])
            taken.append(frames[at])
            at += 1
        if count > 0 and answers and commands[len(answers) - 1][:1] != (b"QUIT",):
            return None
        answers.append(taken)
    return answers if at == len(frames) else None


def silence_after(name, args, silence, in_multi):
    """What CLIENT REPLY makes of the answers: None, b"OFF", or b"NEXT" for one more command."""
    if name == b"RESET":
        return None
    if name != b"CLIENT" or len(args) != 3 or args[1].upper() != b"REPLY" or in_multi:
        return silence
    mode = args[2].upper()
    return {b"OFF": b"OFF", b"ON": None, b"SKIP": silence or b"NEXT"}.get(mode, silence)


SUBSCRIBING = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")
UNSUBSCRIBING = (b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE")


def frames_of(name, args, frames, at):
    """How many frames answer a command, the first of which is at that place."""
    if name not in SUBSCRIBING + UNSUBSCRIBING or frames[at : at + 1] == [b"+QUEUED\r\n"]:
        return 1
    if frames[at : at + 1] and frames[at][:1] == b"-":
        return 1
    if len(args) > 1:
        return len(args) - 1
    word = b"\r\n%b\r\n" % name.lower()
    count = 0
    while at + count < len(frames) and word in frames[at + count][:30]:
        count += 1
    return max(count, 1)
