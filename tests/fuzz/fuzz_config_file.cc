// Any bytes as a configuration file: an error of one line that names the place, or a configuration
// that prints as TOML, with comments and without, and reads back the same.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/config_option.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

using nearkey::Config;
using nearkey::ConfigError;
using nearkey::ConfigSources;

namespace {

// A file in memory with a name of its own: nearkey reads it as it reads any file.
class MemoryFile {
public:
    MemoryFile() : fd_(memfd_create("nearkey-fuzz", MFD_CLOEXEC)) { NEARKEY_CHECK(fd_ >= 0); }
    ~MemoryFile() { close(fd_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
    void write_all(std::string_view text) const {
        NEARKEY_CHECK(ftruncate(fd_, 0) == 0);
        const ssize_t written = pwrite(fd_, text.data(), text.size(), 0);
        NEARKEY_CHECK(written == static_cast<ssize_t>(text.size()));
    }

private:
    int fd_;
};

Config load(const MemoryFile& file) {
    ConfigSources sources;
    sources.config_file = file.path();
    sources.environment.user_id = 1000;
    return load_config(sources);
}

void check_error(const std::string& message, const std::string& path) {
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; };
    NEARKEY_CHECK(message.starts_with(path + ":") || message.starts_with("server."));
    NEARKEY_CHECK(std::none_of(message.begin(), message.end(), is_control));
    NEARKEY_CHECK(nearkey::utf8_prefix(message) == message.size());
    NEARKEY_CHECK(message.size() < size_t{16} << 10);
}

void check_prints_and_reads_back(const Config& config) {
    static const MemoryFile file;
    const std::string printed = to_toml(config);
    for (const std::string& text : {printed, to_commented_toml(config)}) {
        file.write_all(text);
        // A ConfigError ends the program here: what nearkey prints, it must read.
        NEARKEY_CHECK(to_toml(load(file)) == printed);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const MemoryFile file;
    file.write_all(nearkey::fuzz::as_text(data, size));
    Config config;
    try {
        config = load(file);
    } catch (const ConfigError& error) {
        check_error(error.what(), file.path());
        return 0;
    }
    check_prints_and_reads_back(config);
    return 0;
}
