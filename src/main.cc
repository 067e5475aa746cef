#include "nearkey/daemon/command_line.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/daemon/daemon.h"
#include "nearkey/daemon/process_limits.h"

#include <unistd.h>
#include <clocale>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <span>
#include <string_view>

namespace {

// Says it, for nothing can be done by then: operator new calls this in place of a bad_alloc that no
// callback of the loop may throw.
[[noreturn]] void on_no_memory() {
    constexpr std::string_view kWords = "nearkey: out of memory; raise MemoryMax= or ulimit -v\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kWords.data(), kWords.size());
    std::abort();
}

int serve(const nearkey::Invocation& invocation) {
    std::set_new_handler(on_no_memory);
    const nearkey::ConfigSources& sources = invocation.sources;
    try {
        const nearkey::Config config = nearkey::load_config(sources);
        try {
            nearkey::provide_descriptors();
            return nearkey::Daemon(config, sources).run();
        } catch (const nearkey::ConfigError&) {
            throw;
        } catch (const std::exception& error) {
            std::cerr << "nearkey: " << error.what() << '\n';
            return nearkey::kExitFailed;
        }
    } catch (const nearkey::ConfigError& error) {
        std::cerr << "nearkey: " << error.what() << '\n';
        return nearkey::kExitMistaken;
    }
}

}  // namespace

int main(int argc, char** argv) {
    using Verb = nearkey::Invocation::Verb;
    const std::span<const char* const> arguments(argv, static_cast<size_t>(argc));
    const nearkey::Invocation invocation =
        nearkey::parse_command_line(arguments, nearkey::system_environment(), std::cout, std::cerr);
    nearkey::hide_passwords(std::span<char* const>(argv, static_cast<size_t>(argc)));
    nearkey::hide_secrets_in_environment();
    if (invocation.exit_code) return *invocation.exit_code;
    switch (invocation.verb) {
        case Verb::Serve:
            return serve(invocation);
        case Verb::Check:
            return nearkey::run_check(invocation, std::cout, std::cerr);
        case Verb::Ask:
            std::setlocale(LC_CTYPE, "");
            return invocation.ask(invocation.ask_options, std::cout, std::cerr);
        case Verb::None:
            break;
    }
    return nearkey::kExitMistaken;
}
