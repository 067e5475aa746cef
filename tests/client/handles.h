// The library as the tests call it: handles that close themselves, values as strings.
// Included by the tests of tests/client alone.
#pragma once

#include "nearkey/client.h"

#include <cstdint>
#include <memory>
#include <string>

namespace nearkey::client {

using Handle = std::unique_ptr<nearkey_cache, decltype(&nearkey_close)>;

inline Handle open_handle(const std::string& url, uint32_t sample_every = UINT32_MAX,
                          uint32_t timeout_ms = 10'000) {
    const nearkey_options options{sizeof options, timeout_ms, sample_every};
    return {nearkey_open(url.c_str(), &options), &nearkey_close};
}

struct Got {
    int64_t result;
    std::string value;
    bool operator==(const Got&) const = default;
};

inline Got get(const Handle& cache, const std::string& key) {
    char buffer[NEARKEY_VALUE_MAX];
    const int64_t size = nearkey_get(cache.get(), key.data(), key.size(), buffer, sizeof buffer);
    return {size, size < 0 ? "" : std::string(buffer, static_cast<size_t>(size))};
}

inline nearkey_info_t info_of(const Handle& cache) {
    nearkey_info_t info{};
    info.size = sizeof info;
    nearkey_info(cache.get(), &info);
    return info;
}

inline std::string why_off(const Handle& cache) {
    const char* why = info_of(cache).why_off;
    return why == nullptr ? "" : why;
}

}  // namespace nearkey::client
