// man/nearkey.toml.5 is made of the option table, and equal to it.
// NEARKEY_WRITE_DOCS=1 build/nearkey_unit_tests -tc='man page*' writes it anew.
#include "nearkey/daemon/config_option.h"

#include "../generated_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>

namespace nearkey::man_page_test {
namespace {

constexpr const char* kPath = "man/nearkey.toml.5";

constexpr const char* kBegin =
    R"(.\" Made of the option table by tests/unit/daemon/man_page_test.cc.
.Dd November 25, 2026
.Dt NEARKEY.TOML 5
.Os
.Sh NAME
.Nm nearkey.toml
.Nd configuration of nearkey
.Sh DESCRIPTION
The file is TOML: tables of options, each a key and a value.
Options that are not named keep their defaults.
It is read when
.Xr nearkey 1
is told its name by
.Fl \-config
or by
.Ev NEARKEY_CONFIG
in the environment; an option is also set by
.Fl \-set Ar table.key=value ,
which is stronger.
.Pp
.Dl nearkey check --config FILE
.Pp
says whether a file is sound, or the line and the key that are not.
An unknown key is a mistake.
.Pp
A size is a number of bytes or a text as
.Li \(dq64KiB\(dq ,
.Li \(dq1MiB\(dq
or
.Li \(dq2GiB\(dq .
.Pp
While nearkey runs,
.Ic nearkey reload
applies what has changed, without dropping a client.
An option marked
.Em restart
refuses that as a whole if it has changed.
)";

constexpr const char* kListenerBegin = R"(.Ss [[listener]]\&
A further address, whose clients are treated in a way of its own.
The table may be repeated.
)";

constexpr const char* kEnd = R"(.Sh FILES
.Bl -tag -width Ds
.It Pa /etc/nearkey/nearkey.toml
The configuration of the service, every option with its default.
.El
.Sh EXAMPLES
Where Valkey is, with its password in a file:
.Bd -literal -offset indent
[upstream]
url = "valkeys://cache.example.com"
username = "app"
password_file = "/etc/nearkey/upstream-password"
.Ed
.Pp
A second address for reports, which are not to fill the near cache:
.Bd -literal -offset indent
[[listener]]
address = "/run/nearkey/reports.sock"
near_cache = false
allow_users = ["reports"]
clients_max = 20
.Ed
.Sh SEE ALSO
.Xr nearkey 1
)";

// A text as roff takes it for itself.
std::string in_quotes(std::string_view text) {
    std::string safe;
    for (const char c : text) {
        if (c == '\\') {
            safe += "\\e";
        } else if (c == '"') {
            safe += "\\(dq";
        } else if (c == '-') {
            safe += "\\-";
        } else {
            safe += c;
        }
    }
    return safe;
}

// Each sentence on lines of its own, none longer than it may be in a manual's source.
void append_sentences(std::string_view text, std::string& page) {
    constexpr size_t kWidth = 79;
    std::istringstream words{std::string(text)};
    std::string line;
    for (std::string word; words >> word;) {
        const bool is_full = !line.empty() && line.size() + 1 + word.size() > kWidth;
        const bool is_next = line.ends_with('.') || line.ends_with("\".");
        if (is_full || is_next) {
            page += line + "\n";
            line.clear();
        }
        // What stands first on a line is not to be taken for a macro.
        if (line.empty() && (word.front() == '.' || word.front() == '\'')) line = "\\&";
        line += (line.empty() || line == "\\&" ? "" : " ") + in_quotes(word);
    }
    if (!line.empty()) page += line + "\n";
}

void append_option(const Option& option, std::string_view name, const std::string& fallback,
                   std::string& page) {
    page.append(".It Ic ").append(name).append("\n");
    append_sentences(option.help, page);
    const bool is_plain = option.type == OptionType::Text || option.type == OptionType::List;
    if (!is_plain) append_sentences("Allowed: " + allowed_values(option) + ".", page);
    append_sentences(fallback, page);
    if (option.needs_restart) page += ".Em ( restart )\n";
}

// What a listener has that says nothing of it.
std::string listener_default(const Option& option) {
    if (option.key == "address") return "";
    if (option.key == "database") return "Default: that of upstream.url.";
    if (option.inherits.empty()) return "Default: " + printed(option, with_listener({})) + ".";
    return "Default: that of " + std::string(option.inherits) + ".";
}

std::string manual() {
    std::string page = kBegin;
    page += ".Sh OPTIONS\n";
    std::string table;
    for (const Option& option : options()) {
        if (table_of(option.key) != table) {
            if (!table.empty()) page += ".El\n";
            table = table_of(option.key);
            page.append(".Ss [").append(table).append("]\\&\n.Bl -tag -width Ds\n");
        }
        append_option(option, option.key.substr(table.size() + 1),
                      "Default: " + printed(option, Config{}) + ".", page);
    }
    page.append(".El\n").append(kListenerBegin).append(".Bl -tag -width Ds\n");
    for (const Option& option : listener_options()) {
        append_option(option, option.key, listener_default(option), page);
    }
    return page + ".El\n" + kEnd;
}

TEST_CASE("man page: nearkey.toml(5) is what the option table says") {
    check_generated(kPath, manual());
}

}  // namespace
}  // namespace nearkey::man_page_test
