// Probes for bpftrace, perf and SystemTap (USDT, provider "nearkey"): docs/tracing.md.
// Each has a semaphore, a word that the kernel raises while somebody traces it, and stands in one
// place of the program, in src/base/probes.cc. The one rule: while nobody traces, a probe costs the
// comparison of that word with 0; its arguments are made behind it.
//
//   if (probes::is_traced(nearkey_hit_semaphore)) [[unlikely]] probes::hit(...);
//
// The semaphores are globals because the kernel finds them by their place in the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#define NEARKEY_PROBES(X) \
    X(request)            \
    X(hit)                \
    X(fill)               \
    X(invalidation)       \
    X(upstream_send)      \
    X(upstream_reply)     \
    X(redirect)           \
    X(failover)

extern "C" {
#define NEARKEY_SEMAPHORE(name) extern volatile unsigned short nearkey_##name##_semaphore;
NEARKEY_PROBES(NEARKEY_SEMAPHORE)
#undef NEARKEY_SEMAPHORE
}

namespace nearkey::probes {

inline bool is_traced(const volatile unsigned short& semaphore) {
    return semaphore != 0;
}

// A session's command: the same two numbers from `request` to `upstream_reply`.
struct Command {
    const void* client;  // the receiver of its reply
    uint32_t request;    // its number in the session
};

void request(const Command& command, std::string_view name, std::string_view key,
             std::string_view tag);
void hit(const Command& command, std::string_view key, size_t bytes);
void fill(std::string_view key, size_t bytes);
// No key: of all keys. `cause`: a literal.
void invalidation(std::string_view key, std::string_view cause);
// `name` ends with a NUL; empty: a question of nearkey's own.
void upstream_send(const Command& command, const char* name, size_t bytes);
void upstream_reply(const Command& command, const char* name, size_t bytes, uint32_t wait_us);
// `kind`: a literal. `host`, `port`: that are named; no host and 0: none is.
void redirect(std::string_view kind, int slot, std::string_view host, uint16_t port);
// `cause`: a literal.
void failover(std::string_view cause, const char* upstream);

}  // namespace nearkey::probes
