"""The rules of the house that a machine can check; each rule is one test case.

Run from anywhere: prints `rule: ok` or `rule: FAIL` with the places, then `N passed, N failed`.
A line may break a rule for a good reason: `// style-ok(rule): the reason`, on it or just above it
(for file-length: anywhere in the first 15 lines).
"""
import bisect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
COLUMNS_MAX = 100

# A file includes its own layer and lower ones; layers of the same rank do not know each other.
# cli knows a running daemon by HTTP alone.
RANK = {"base": 0, "loop": 1, "resp": 1, "cache": 1, "upstream": 2, "cli": 2, "session": 3,
        "server": 4, "daemon": 5}

# Third-party header -> the files (without src/ or include/nearkey/) that may include it.
WALLS = [
    (r"uv\.h$|uv/", r"loop/|upstream/hiredis_adapter\.(h|cc)$"),
    (r"hiredis/", r"upstream/"),
    (r"toml\.hpp$|toml11/", r"daemon/config[^/]*\.cc$"),
    (r"nlohmann/", r"base/log|server/admin|cli/"),
    (r"microhttpd\.h$", r"server/admin"),
    (r"CLI/", r"main\.cc$|daemon/"),
]


class Source:
    """A C++ file: its lines as written, and its code without comments and literals."""

    def __init__(self, path):
        self.path = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.split("\n")
        self.code = blank_comments_and_literals(self.text)
        self.in_tests = self.path.startswith("tests/")
        # The path inside the library: "loop/timer.h" for header and implementation alike.
        self.module = re.sub(r"^(src|include/nearkey)/", "", self.path)

    @property
    def layer(self):
        first = self.module.split("/")[0]
        return "daemon" if self.path == "src/main.cc" else first

    def line_count(self):
        return len(self.lines) - (1 if self.lines[-1] == "" else 0)

    def includes(self):
        """Pairs of (line number, included name)."""
        pattern = re.compile(r'\s*#\s*include\s*[<"]([^>"]+)[>"]')
        for number, line in enumerate(self.lines, 1):
            match = pattern.match(line)
            if match:
                yield number, match.group(1)

    def is_allowed(self, rule, number):
        mark = f"style-ok({rule}):"
        first = 0 if rule == "file-length" else max(0, number - 2)
        last = 15 if rule == "file-length" else number
        return any(mark in line for line in self.lines[first:last])


def blank_comments_and_literals(text):
    """The same text with comments and the inside of literals as blanks; line breaks stay."""
    token = re.compile(
        r'//(?:\\\n|[^\n])*'
        r'|/\*.*?\*/'
        r'|(?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"'
        r'|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-FxX])'(?:\\.|[^'\\\n])+'", re.S)

    def blank(match):
        found = match.group(0)
        inside = re.sub(r"[^\n]", " ", found)
        return inside if found[0] == "/" else '"' + inside[1:-1] + '"'

    return token.sub(blank, text)


def functions(code):
    """Pairs (first line, number of lines) of the function bodies outside of other functions."""
    starts = [0] + [m.end() for m in re.finditer("\n", code)]
    code = re.sub(r"(?m)^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m[0]), code)
    position, head = 0, 0
    while True:
        match = re.compile(r"[{};]").search(code, position)
        if not match:
            return
        position = match.end()
        if match.group(0) != "{":
            head = position
            continue
        kind = kind_of_brace(code[head:match.start()])
        if kind == "scope":
            head = position
            continue
        end = matching_brace(code, match.start())
        position = end + 1
        if kind == "member":  # An initializer of a constructor: its body is still to come.
            continue
        if kind == "function":
            leading = len(code[head:]) - len(code[head:].lstrip())
            first = bisect.bisect_right(starts, head + leading)
            yield first, bisect.bisect_right(starts, end) - first + 1
        head = position


def kind_of_brace(head):
    """What a `{` opens, told by the text before it: a scope, a function, a member or a value."""
    head = re.sub(r"template\s*<(?:[^<>]|<[^<>]*>)*>", " ", head).strip()
    is_type = re.search(r"\b(class|struct|union|enum|namespace)\b", head)
    if head == 'extern ""' or (is_type and not head.endswith(")")):
        return "scope"
    if ")" not in head:
        return "value"
    if re.search(r"\)\s*(noexcept\s*)?:(?!:)", head) and not re.search(r"[)}]$", head):
        return "member"
    return "function"


def matching_brace(code, start):
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if match.group(0) == "{" else -1
        if depth == 0:
            return match.start()
    return len(code)


def own_header_of(source):
    """What the first include of src/<layer>/x.cc must be; None where there is no such header."""
    if not source.path.startswith("src/") or not source.path.endswith(".cc"):
        return None
    name = "nearkey/" + source.module[:-len("cc")] + "h"
    return name if (ROOT / "include" / name).exists() else None


# The rules. Each yields (source, line number, message) for what it finds.

def check_layers(sources):
    for source in sources:
        if source.in_tests:
            continue
        if source.layer not in RANK:
            yield source, 1, f"{source.layer}/ is not a layer"
            continue
        for number, name in source.includes():
            parts = name.split("/")
            if parts[0] == "nearkey" and len(parts) > 2:
                other = parts[1]
            elif name.endswith((".h", ".hpp")) and parts[0] in RANK and len(parts) > 1:
                other = parts[0]
            else:
                continue
            if other not in RANK:
                yield source, number, f"{other}/ is not a layer"
            elif other != source.layer and RANK[other] >= RANK[source.layer]:
                yield source, number, f"{source.layer} must not include {name}"


def check_library_walls(sources):
    for source in sources:
        if source.in_tests:
            continue
        for number, name in source.includes():
            for header, allowed in WALLS:
                if re.match(header, name) and not re.match(allowed, source.module):
                    yield source, number, f"{name} stays behind its wall: {allowed}"


def check_own_header_first(sources):
    for source in sources:
        own = own_header_of(source)
        first = next(iter(source.includes()), (1, "nothing"))
        if own and first[1] != own:
            yield source, first[0], f"includes {first[1]} before {own}"


def check_header_comment(sources):
    for source in sources:
        if not source.path.endswith(".h"):
            continue
        lines = [s.strip() for s in source.lines if s.strip() and s.strip() != "#pragma once"]
        if len([line for line in lines[:2] if line.startswith("//")]) < 2:
            yield source, 1, "a header starts with two lines or more on what it is for"


def check_pragma_once(sources):
    for source in sources:
        if source.path.endswith(".h") and source.code.count("#pragma once") != 1:
            yield source, 1, "one #pragma once"


def check_file_length(sources):
    for source in sources:
        if source.line_count() > FILE_LINES_MAX:
            yield source, 1, f"{source.line_count()} lines, {FILE_LINES_MAX} at most"


def check_function_length(sources):
    for source in sources:
        for first, count in functions(source.code):
            if count > FUNCTION_LINES_MAX:
                yield source, first, f"{count} lines, {FUNCTION_LINES_MAX} at most"


def check_line_length(sources):
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if len(line) > COLUMNS_MAX:
                yield source, number, f"{len(line)} columns, {COLUMNS_MAX} at most"


def check_using_namespace(sources):
    for source in sources:
        for number, line in enumerate(source.code.split("\n"), 1):
            if re.search(r"\busing\s+namespace\b", line):
                yield source, number, "no using namespace"


def check_todo(sources):
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if re.search(r"\b(FIXME|XXX)\b|\bTODO\b(?!\((soon|perf|port)\): \S)", line):
                yield source, number, "TODO(soon|perf|port): what, and when it hurts"


RULES = [
    ("layers", check_layers),
    ("library-walls", check_library_walls),
    ("own-header-first", check_own_header_first),
    ("header-comment", check_header_comment),
    ("pragma-once", check_pragma_once),
    ("file-length", check_file_length),
    ("function-length", check_function_length),
    ("line-length", check_line_length),
    ("using-namespace", check_using_namespace),
    ("todo", check_todo),
]


def main():
    folders = [ROOT / "include", ROOT / "src", ROOT / "tests"]
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in (".h", ".cc"))
    sources = [Source(path) for path in paths]
    passed = 0
    for name, rule in RULES:
        found = [f for f in rule(sources) if not f[0].is_allowed(name, f[1])]
        passed += not found
        print(f"{name}: {'FAIL' if found else 'ok'}")
        for source, number, message in found:
            print(f"  {source.path}:{number}: {message}")
    print(f"{passed} passed, {len(RULES) - passed} failed")
    return 0 if passed == len(RULES) else 1


if __name__ == "__main__":
    sys.exit(main())
