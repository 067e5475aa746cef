"""The rules of the house that a machine can check; each rule is one test case.

Run from anywhere: prints `rule: ok` or `rule: FAIL` with the places, then `N passed, N failed`.
A line may break a rule for a good reason: `// style-ok(rule): the reason`, on it or just above it
(for file-length and slices: anywhere in the first 15 lines).
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What one hand-written class may hold: this is the limit that matters. File length comes second.
CLASS_MAX = {"methods": 45, "fields": 30, "bools": 8}
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
COLUMNS_MAX = 100

# A file includes its own layer and lower ones; layers of the same rank do not know each other.
# cli knows a running daemon by HTTP alone.
RANK = {"base": 0, "loop": 1, "resp": 1, "cache": 1, "dispatch": 2, "upstream": 3, "cli": 3,
        "coherence": 4, "session": 5, "server": 6, "daemon": 7, "client": 7}
# The client library is C, for other people's processes: of nearkey it knows these alone.
CLIENT_MAY_INCLUDE = ("nearkey/client.h", "nearkey/cache/segment.h")

# Third-party header -> the files (without src/ or include/nearkey/) that may include it.
WALLS = [
    (r"uv\.h$|uv/", r"loop/|upstream/hiredis_adapter\.(h|cc)$"),
    (r"hiredis/", r"upstream/"),
    (r"toml\.hpp$|toml11/", r"daemon/config[^/]*\.cc$"),
    (r"nlohmann/", r"base/log|server/admin|cli/"),
    (r"microhttpd\.h$", r"server/admin"),
    (r"sys/sdt\.h$", r"base/probes\.cc$"),
    (r"CLI/", r"daemon/command_line\.cc$"),
    (r"client/|nearkey/client\.h$", r"client/"),
]


class Source:
    """A C++ or C file: its lines as written, and its code without comments and literals."""

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
        # The one public header stands where programs include it from.
        return {"main.cc": "daemon", "client.h": "client"}.get(first, first)

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
        is_of_file = rule in ("file-length", "slices")
        first = 0 if is_of_file else max(0, number - 2)
        last = 15 if is_of_file else number
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


def blank_directives(code):
    """The same text with preprocessor lines as blanks: an X-list is no member of a class."""
    return re.sub(r"(?m)^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m[0]), code)


def line_of(code, position):
    return code.count("\n", 0, position) + 1


def functions(code):
    """Triples (first line, number of lines, head) of the functions outside of other functions."""
    code = blank_directives(code)
    position, start = 0, 0
    while True:
        match = re.compile(r"[{};]").search(code, position)
        if not match:
            return
        position = match.end()
        if match.group(0) != "{":
            start = position
            continue
        head = code[start:match.start()]
        kind = kind_of_brace(head)
        if kind == "scope":
            start = position
            continue
        end = matching_brace(code, match.start())
        position = end + 1
        if kind == "member":  # An initializer of a constructor: its body is still to come.
            continue
        if kind == "function":
            first = line_of(code, start + len(head) - len(head.lstrip()))
            yield first, line_of(code, end) - first + 1, head
        start = position


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


class Class:
    """A class with a body: its full name, and what it declares itself. Nested ones are their own."""

    def __init__(self, source, line, name):
        self.source, self.line, self.name = source, line, name
        self.counts = dict.fromkeys(CLASS_MAX, 0)

    def add(self, member):
        kind, count = kind_of_member(member)
        if kind == "bools":
            self.counts["fields"] += count
        if kind:
            self.counts[kind] += count

    @property
    def sizes(self):
        return tuple(self.counts.values())

    @property
    def share(self):
        """How much of the nearest bound is used."""
        return max(self.counts[kind] / bound for kind, bound in CLASS_MAX.items())

    def __str__(self):
        return f"{self.name}: " + ", ".join(f"{n} {kind}" for kind, n in self.counts.items())


CLASS_HEAD = re.compile(
    r"(?<!\benum )\b(?:class|struct|union)\b(?:\s*\[\[.*?\]\]|\s+alignas\(.*?\))*\s*"
    r"(?P<name>[\w:]*)(?:<[^{};()]*>)?(?:\s+final)?\s*(?<!:)(?::(?!:)[^{};]*)?$")


def without_templates(text):
    """`std::array<bool, 3> x` as `std::array x`; operators that are made of < and = as words."""
    text = re.sub(r"\boperator\s*[^\s\w(]+", "operator_", text)
    previous = None
    while previous != text:
        previous, text = text, re.sub(r"<[^<>;]*>", "", text)
    return text


def kind_of_member(member):
    """("methods", 1), ("fields", 2) or ("bools", 1); (None, 0) where nothing is added to a class."""
    text = re.sub(r"\b(?:public|private|protected)\s*:(?!:)", " ", member)
    text = re.sub(r"\[\[.*?\]\]|\balignas\([^()]*\)", " ", text)
    text = re.sub(r"^\s*(?:[A-Z][A-Z0-9_]+\([^()]*\)\s*)+", "", text)  # An X-list.
    text = " ".join(without_templates(text).split())
    if not text or re.match(r"(using|typedef|friend|enum|class|struct|union|static_assert"
                            r"|(static |inline )*constexpr (?![^=]*\())\b", text + " "):
        return None, 0
    declared = re.split(r"=|\{", text, maxsplit=1)[0]
    # What looks like a function and is none: `void (Session::*action)()`.
    if "(" in declared and not re.match(r"[^(]*\(\s*[\w:]*\*\s*\w+\)\s*\(", declared):
        return "methods", 1
    previous, flat = None, text
    while previous != flat:
        previous, flat = flat, re.sub(r"\([^()]*\)|\{[^{}]*\}", "", flat)
    is_bool = re.match(r"((?:mutable|static|inline|const|std::) ?)*(bool|atomic_bool)\b", flat)
    return ("bools" if is_bool or re.search(r"\batomic<bool>", member) else "fields",
            1 + flat.count(","))


def classes(source):
    """Every class of a file that has a body."""
    code = blank_directives(source.code)
    found = []

    def read_scope(start, end, owner):
        position, head = start, start
        while match := re.compile(r"[{;]").search(code, position, end):
            text = code[head:match.start()]
            position = match.end()
            if match.group(0) == ";":
                if owner:
                    owner.add(text)
                head = position
                continue
            close = matching_brace(code, match.start())
            position = close + 1
            label = re.sub(r"template\s*<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>", " ", text).rstrip()
            kind = kind_of_brace(text)
            if klass := CLASS_HEAD.search(label) if "(" not in label.split("class")[0] else None:
                name = "::".join(filter(None, (owner and owner.name, klass["name"] or "unnamed")))
                line = line_of(code, head + len(text) - len(text.lstrip()))
                found.append(Class(source, line, name))
                read_scope(match.end(), close, found[-1])
                position = head = read_declarators(position, end, owner)
            elif kind == "scope":
                read_scope(match.end(), close, None)
                head = position
            elif kind == "function":
                if owner:
                    owner.add(text)
                head = position
            # A value or a member's initializer: what it belongs to goes on.

    def read_declarators(position, end, owner):
        """`struct {...} a, b;` declares fields too."""
        stop = code.find(";", position, end)
        names = code[position:stop].strip() if stop >= 0 else ""
        if owner and names:
            owner.add("unnamed " + names)
        return stop + 1 if stop >= 0 else position

    read_scope(0, len(code), None)
    return found


def class_of_function(head):
    """`Outer::Inner` of the head `bool Outer::Inner::is_there(int x) const`, else an empty text."""
    match = re.match(r"[^(]*?((?:\w+::)+)(?:~?\w+|operator[^\w(]*)\s*\(", without_templates(head))
    return match.group(1)[:-2] if match else ""


def own_header_of(source):
    """What the first include of src/<layer>/x.cc must be; None where there is no such header."""
    path = Path(source.module)
    if not source.path.startswith("src/") or path.suffix not in (".cc", ".c"):
        return None
    if path.suffix == ".c" and (ROOT / source.path).with_suffix(".h").exists():
        return path.with_suffix(".h").name
    name = f"nearkey/{path.with_suffix('.h')}"
    return name if (ROOT / "include" / name).exists() else None


# A text, and what classes() must find in it: what has misled it, or could.
EXAMPLE = """
#define FIELDS(X) X(int, a) \\
    X(int, b)
enum class Kind : uint8_t { A, B };
template <class T, class Less = std::less<T>>
class [[nodiscard]] Outer final : public Base<T>, private Other {
    struct Inner;
    friend class Else;
    enum class Later : int;
    using Map = std::map<int, bool>;
    static constexpr int kMax = 5;

public:
    explicit Outer(int a) : Base<T>{a}, b_(a), c_{1, 2} { b_ = a; }
    ~Outer();
    Outer& operator=(const Outer&) = delete;
    bool operator==(const Outer&) const = default;
    bool operator()(int x) const { return x < b_; }
    template <class F>
    void call(F&& f, Options o = {}) { if (true) { f([] { return 1; }); } }
    static constexpr int twice(int x) { return 2 * x; }
    std::function<void(int)> on_done() const;

private:
#define ROW(name, type) type name;
    FIELDS(ROW)
    std::function<void(bool, int)> callback_ = [](bool, int) { return; };
    void (Outer::*action_)() = nullptr;
    std::map<int, bool> map_{{1, true}, {2, false}};
    mutable bool is_a_ = false, is_b_{true};
    std::atomic<bool> is_c_{false};
    [[no_unique_address]] bool is_d_;
    unsigned bit_ : 1;
    int b_, c_[2];
    enum class State { On, Off } state_ = State::On;
    struct { int x; bool is_y; } point_;
};
struct Outer::Inner { int x; void f(); };
template <> struct Special<Outer> { int x; };
bool make(struct Inner* x) { class Local { int a; }; return x; }
"""
EXAMPLE_CLASSES = {"Outer": (8, 12, 4), "Outer::unnamed": (0, 2, 1), "Outer::Inner": (1, 1, 0),
                   "Special": (0, 1, 0)}
EXAMPLE_HEADS = {
    "std::map<int, A::B> Outer::Inner::find(int x) const": "Outer::Inner",
    "Outer::Outer(int x) : a_(B::make(x))": "Outer", "Outer::~Outer()": "Outer",
    "bool Outer::operator()(int x)": "Outer", "A::B make(std::string (*f)(int) = A::b(1))": "",
}


def example_source(path, text):
    source = Source(Path(__file__))
    source.path, source.module, source.in_tests = path, path, False
    source.code = blank_comments_and_literals(text)
    return source


def check_counting(_sources):
    example = example_source("base/x.h", EXAMPLE)
    found = {c.name: c.sizes for c in classes(example)}
    if found != EXAMPLE_CLASSES:
        yield example, 1, f"of EXAMPLE: {found}, not {EXAMPLE_CLASSES}"
    for head, name in EXAMPLE_HEADS.items():
        if class_of_function(head) != name:
            yield example, 1, f"{head}: {class_of_function(head)}, not {name}"
    member = "struct Own { void f(); };\n// Two.\nvoid Own::f() {}\nvoid Outer::Inner::f() {}\n"
    own, other = example_source("base/x.cc", member), example_source("base/y.cc", member)
    places = [(source, line) for source, line, _ in check_slices([example, own, other])]
    if places != [(other, 4)]:
        yield example, 1, f"slices: {places}"


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
            if source.layer == "client":
                if parts[0] == "nearkey" and name not in CLIENT_MAY_INCLUDE:
                    yield source, number, f"client must not include {name}"
                continue
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


def check_class_size(sources):
    bounds = tuple(CLASS_MAX.values())
    for source in sources:
        for found in classes(source) if not source.in_tests else ():
            if any(size > bound for size, bound in zip(found.sizes, bounds)):
                yield source, found.line, f"{found}; at most {bounds}"


def check_slices(sources):
    """A .cc defines members only of classes that its own header or itself declares."""
    homes = {}
    for source in sources:
        for found in classes(source):
            homes.setdefault(found.name, set()).add(source.module)
    for source in sources:
        if source.in_tests or not source.path.endswith(".cc"):
            continue
        own = {source.module, source.module[:-len("cc")] + "h"}
        for first, _, head in functions(source.code):
            name = class_of_function(head)
            if not homes.get(name, own) & own:
                yield source, first, f"defines a member of {name}, which is {min(homes[name])}'s"


def check_language(sources):
    for source in sources:
        if source.path.endswith(".c") and not source.in_tests and source.layer != "client":
            yield source, 1, "C is for src/client alone"


def check_file_length(sources):
    for source in sources:
        if source.line_count() > FILE_LINES_MAX:
            yield source, 1, f"{source.line_count()} lines, {FILE_LINES_MAX} at most"


def check_function_length(sources):
    for source in sources:
        for first, count, _ in functions(source.code):
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


CONSTANT = re.compile(r"^(?:constexpr|constinit|const)\b[^=({\n]*?\b(k[A-Z]\w*)\b", re.M)


def check_constants(sources):
    """A constant of one file has a name of its own in its layer: a reader who looks for it finds
    one, and builds with a sanitizer compile several files as one."""
    first = {}  # by layer and name
    for source in sources:
        if source.in_tests or not source.path.endswith(".cc"):
            continue
        for found in CONSTANT.finditer(source.code):
            other = first.setdefault((source.layer, found[1]), source)
            if other is not source:
                yield source, line_of(source.code, found.start()), f"{found[1]} is {other.path}'s"


# A trap of docs/traps.md ("C8"; S3-FIFO is none) or rows of docs/faults.md ("rows 2, 22 and 37").
TRAP = re.compile(r"\b[CFPS]\d{1,2}\b(?!-FIFO)|(?<=\btest_)[cfps]\d{1,2}(?=_)")
ROWS = re.compile(r"(?:\b|_)(?:rows?|faults?)[\s_/#]+\d{1,2}\b"
                  r"(?:(?:,| and| to|_and)[\s_/#]+\d{1,2})*"
                  r"|(?<=\btest_)rows?(?:_(?:and_)?\d{1,2})+(?=_)")


def check_citations(sources):
    """What cites a trap or a fault by its number can be looked up."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.py")]
    paths += [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("traps.md", "faults.md"))
    known = set(re.findall(r"^\| ([A-Z]?\d+) \|", pages, re.M))
    for source in sources + [Source(path) for path in paths if path != Path(__file__).resolve()]:
        for found in [*TRAP.finditer(source.text), *ROWS.finditer(source.text)]:
            for name in re.findall(r"[A-Z]?\d+", found[0].upper()):
                if name not in known:
                    line = source.text.count("\n", 0, found.start()) + 1
                    yield source, line, f"no row {name} in docs/traps.md or docs/faults.md"


RULES = [
    ("layers", check_layers),
    ("library-walls", check_library_walls),
    ("own-header-first", check_own_header_first),
    ("header-comment", check_header_comment),
    ("pragma-once", check_pragma_once),
    ("counting", check_counting),
    ("class-size", check_class_size),
    ("slices", check_slices),
    ("language", check_language),
    ("file-length", check_file_length),
    ("function-length", check_function_length),
    ("line-length", check_line_length),
    ("using-namespace", check_using_namespace),
    ("constants", check_constants),
    ("todo", check_todo),
    ("citations", check_citations),
]


def main():
    folders = [ROOT / "include", ROOT / "src", ROOT / "tests"]
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in (".h", ".cc", ".c"))
    sources = [Source(path) for path in paths]
    passed = 0
    for name, rule in RULES:
        found = [f for f in rule(sources) if not f[0].is_allowed(name, f[1])]
        passed += not found
        print(f"{name}: {'FAIL' if found else 'ok'}")
        for source, number, message in found:
            print(f"  {source.path}:{number}: {message}")
    largest = sorted((c for s in sources if not s.in_tests for c in classes(s)),
                     key=lambda c: -c.share)
    print("the largest classes:")
    for found in largest[:5]:
        print(f"  {found}")
    print(f"{passed} passed, {len(RULES) - passed} failed")
    return 0 if passed == len(RULES) else 1


if __name__ == "__main__":
    sys.exit(main())
