#define _SDT_HAS_SEMAPHORES 1
#include "nearkey/base/probes.h"

#include <sys/sdt.h>

#include <array>

// In this section a tracer expects them; "used", for only the probes' notes name them.
#define NEARKEY_SEMAPHORE(name) \
    [[gnu::section(".probes"), gnu::used]] volatile unsigned short nearkey_##name##_semaphore = 0;
extern "C" {
NEARKEY_PROBES(NEARKEY_SEMAPHORE)
}
#undef NEARKEY_SEMAPHORE

namespace nearkey::probes {

namespace {
// The beginning of a text, and a NUL: bpftrace takes six arguments of a probe, too few for lengths.
class Text {
public:
    explicit Text(std::string_view text) {
        text.substr(0, bytes_.size() - 1).copy(bytes_.data(), bytes_.size());
    }
    const char* get() const { return bytes_.data(); }

private:
    std::array<char, 129> bytes_{};
};
}  // namespace

void request(const Command& command, std::string_view name, std::string_view key,
             std::string_view tag) {
    const Text name_text(name);
    const Text tag_text(tag);
    STAP_PROBE6(nearkey, request, command.client, command.request, name_text.get(), key.data(),
                key.size(), tag_text.get());
}

void hit(const Command& command, std::string_view key, size_t bytes) {
    STAP_PROBE5(nearkey, hit, command.client, command.request, key.data(), key.size(), bytes);
}

void fill(std::string_view key, size_t bytes) {
    STAP_PROBE3(nearkey, fill, key.data(), key.size(), bytes);
}

void invalidation(std::string_view key, std::string_view cause) {
    STAP_PROBE3(nearkey, invalidation, key.data(), key.size(), cause.data());
}

void upstream_send(const Command& command, const char* name, size_t bytes) {
    STAP_PROBE4(nearkey, upstream_send, command.client, command.request, name, bytes);
}

void upstream_reply(const Command& command, const char* name, size_t bytes, uint32_t wait_us) {
    STAP_PROBE5(nearkey, upstream_reply, command.client, command.request, name, bytes, wait_us);
}

void redirect(std::string_view kind, int slot, std::string_view host, uint16_t port) {
    STAP_PROBE5(nearkey, redirect, kind.data(), slot, host.data(), host.size(), port);
}

void failover(std::string_view cause, const char* upstream) {
    STAP_PROBE2(nearkey, failover, cause.data(), upstream);
}

}  // namespace nearkey::probes
