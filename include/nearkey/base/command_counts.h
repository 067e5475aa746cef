// How often each command was received, and how often its reply was an error, by the first word.
// A part of Metrics: one event loop counts, any thread may read. Rows stay where they are for as
// long as it lives, so that a command's spec points to its own and counting is one addition. The
// one rule: a label is a name from the server's COMMAND or a code of the list below; nothing that
// a client has sent is one.
#pragma once

#include "nearkey/base/count.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

// The first words of the server's errors and of nearkey's own; a script's own ones are "other".
inline constexpr auto kErrorCodes = std::to_array<std::string_view>({
    "ERR",          "WRONGTYPE",       "WRONGPASS", "NOAUTH",
    "NOPERM",       "NOPROTO",         "OOM",       "BUSY",
    "BUSYKEY",      "BUSYGROUP",       "NOGROUP",   "NOSCRIPT",
    "NOTBUSY",      "UNKILLABLE",      "EXECABORT", "LOADING",
    "MASTERDOWN",   "NOMASTERLINK",    "READONLY",  "NOREPLICAS",
    "NOGOODSLAVE",  "MISCONF",         "IOERR",     "INPROG",
    "UNBLOCKED",    "REDIRECT",        "MOVED",     "ASK",
    "CROSSSLOT",    "CLUSTERDOWN",     "TRYAGAIN",  "DENIED",
    "INVALIDOBJ",   "NOTREADY",        "DUPLICATE", "UPSTREAMDOWN",
    "UPSTREAMLOST", "UPSTREAMTIMEOUT", "other",
});
// The place in the list. `error`: its text, with or without "-" before it.
size_t error_code_of(std::string_view error);

// One command.
class CommandCount {
public:
    explicit CommandCount(std::string name) : name_(std::move(name)) {}

    // As COMMAND has it, "client|setname"; "unknown": the server has no such command.
    const std::string& name() const { return name_; }
    void count_error(std::string_view error);
    uint64_t errors(size_t code) const;
    bool is_used() const { return forwarded > 0 || answered > 0; }
    void add(const CommandCount& other);

    Count forwarded;  // to Valkey
    Count answered;   // here, from the near cache included

private:
    using Errors = std::array<Count, kErrorCodes.size()>;
    Errors& errors();

    const std::string name_;
    std::unique_ptr<Errors> errors_;             // from the first one on
    std::atomic<const Errors*> shown_{nullptr};  // the same, for other threads
};

class CommandCounts {
public:
    static constexpr size_t kNamesMax = 4096;

    CommandCounts();
    // Copies what is counted so far.
    CommandCounts(const CommandCounts& other);
    CommandCounts& operator=(const CommandCounts& other) = delete;

    // The row of that name. Names beyond kNamesMax, and such as no server has, share "other".
    CommandCount& of(std::string_view name);
    // The row of commands that the server does not know.
    CommandCount& unknown() { return *unknown_; }
    void add(const CommandCounts& other);
    // Visits those that were counted, and "unknown", in the order of their names.
    void for_each(const std::function<void(const CommandCount&)>& visit) const;
    uint64_t total(Count CommandCount::*field) const;

private:
    CommandCount& find(std::string_view name);

    mutable std::mutex mutex_;  // of the map, not of the rows
    std::map<std::string, CommandCount, std::less<>> rows_;
    CommandCount* unknown_;
};

}  // namespace nearkey
