#include "nearkey/cache/thrash_guard.h"

#include <algorithm>

namespace nearkey {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Calls visit(c) for each character of the family's name.
template <class Visit>
void spell_family(std::string_view key, Visit visit) {
    const size_t colon = key.rfind(':');
    const std::string_view name = colon == std::string_view::npos ? key : key.substr(0, colon + 1);
    bool in_number = false;
    for (const char c : name) {
        if (is_digit(c) && in_number) continue;
        in_number = is_digit(c);
        visit(in_number ? '#' : c);
    }
}

// FNV-1a (Fowler, Noll, Vo 1991), 64 bits.
uint64_t hash_of_family(std::string_view key) {
    uint64_t hash = 0xcbf29ce484222325;
    spell_family(key,
                 [&](char c) { hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3; });
    return std::max<uint64_t>(hash, 1);
}

}  // namespace

std::string ThrashGuard::family_of(std::string_view key) {
    std::string name;
    spell_family(key, [&](char c) { name += c; });
    return name;
}

void ThrashGuard::on_dropped(std::string_view key, uint32_t hits, uint64_t now_ms) {
    const uint64_t hash = hash_of_family(key);
    Family& family = families_[hash % kFamilies];
    if (family.hash != hash) {
        if (family.off_until_ms != 0) return;  // A family that is off keeps its slot.
        family = {.hash = hash, .window_ms = now_ms};
    }
    if (family.off_until_ms != 0) return;
    if (now_ms - family.window_ms >= kWindowMs) {
        // A whole window without trouble is enough.
        family.next_off_ms = kOffMs;
        family.drops = family.hits = 0;
        family.window_ms = now_ms;
    }
    ++family.drops;
    family.hits += hits;
    if (family.drops < kMinDrops || family.hits >= family.drops) return;
    family.off_until_ms = now_ms + family.next_off_ms;
    family.next_off_ms = std::min(family.next_off_ms * 2, kOffMaxMs);
    metrics_.near_cache_families_off = ++off_;
    ++metrics_.near_cache_family_drops_total;
}

uint64_t ThrashGuard::off_for_ms(std::string_view key, uint64_t now_ms) const {
    const Family* const family = find_off(key);
    return family != nullptr && family->off_until_ms > now_ms ? family->off_until_ms - now_ms : 0;
}

const ThrashGuard::Family* ThrashGuard::find_off(std::string_view key) const {
    const uint64_t hash = hash_of_family(key);
    const Family& family = families_[hash % kFamilies];
    return family.hash == hash && family.off_until_ms != 0 ? &family : nullptr;
}

void ThrashGuard::expire(uint64_t now_ms) {
    if (off_ == 0) return;
    for (Family& family : families_) {
        if (family.off_until_ms == 0 || family.off_until_ms > now_ms) continue;
        family.off_until_ms = 0;
        family.drops = family.hits = 0;
        family.window_ms = now_ms;
        --off_;
    }
    metrics_.near_cache_families_off = off_;
}

}  // namespace nearkey
