// What a hit of libnearkey-client costs, beside a lookup and a copy in a std::unordered_map of this
// process: nearkey_segment_bench [--url URL] [--rounds N] [--reads N] [PATH...]. A line of JSON for
// each path: nanoseconds of processor time for a read, the median of the rounds and their range.
// The segment is a nearkey's, which has these keys in it, or one that is made here. Keys are drawn
// before; they are read in the order in which they lie in memory, so that this costs next to
// nothing. A read begins when the one before has its value, as in a program that uses it: which key
// comes next depends on it. Of MGET there are 16 keys.
#include "key_draws.h"
#include "seccomp.h"
#include "segment_host.h"

#include "nearkey/client.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

namespace nearkey::bench {

namespace {

constexpr size_t kValueBytes = 100;
constexpr uint64_t kHotKeys = 1000;
constexpr uint64_t kAllKeys = 1'000'000;
constexpr double kExponent = 0.99;
constexpr uint64_t kWritesPerSecond = 100'000;
constexpr size_t kPartsOfMget = 16;
constexpr size_t kDraws = 1 << 20;

struct Settings {
    int rounds = 5;
    uint64_t reads = 4'000'000;
    std::string url;  // empty: without a nearkey
    std::vector<std::string> paths;
};

// "user:000000000123"
struct KeyText {
    explicit KeyText(uint64_t number) {
        for (size_t i = kSize; i > kPrefix; --i, number /= 10)
            text[i - 1] = static_cast<char>('0' + number % 10);
    }
    std::string_view view() const { return {text, kSize}; }

    static constexpr size_t kPrefix = 5;
    static constexpr size_t kSize = 17;
    char text[24] = "user:000000000000";
};

std::vector<KeyText> draw_keys(const KeyDraws& draws) {
    uint64_t state = 88172645463325252;
    std::vector<KeyText> keys;
    keys.reserve(kDraws);
    for (size_t i = 0; i < kDraws; ++i)
        keys.emplace_back(draws.draw(state));
    return keys;
}

uint64_t thread_ns() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

nearkey_cache* open_segment(const std::string& url) {
    const nearkey_options options{sizeof options, 0, 0};
    return nearkey_open(url.c_str(), &options);
}

// A segment with so many keys, and a handle that reads it.
class Shared {
public:
    explicit Shared(uint64_t keys)
        : memory_({.buckets = bucket_count(keys), .item_bytes = keys * 192 + (1 << 20)}),
          host_(memory_) {
        for (uint64_t i = 0; i < keys; ++i)
            put(i);
        handle_ = open_segment(host_.url());
    }
    ~Shared() { nearkey_close(handle_); }
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;

    void put(uint64_t number) { memory_.put(std::string(KeyText(number).view()), value_); }
    void remove(uint64_t number) { memory_.remove(std::string(KeyText(number).view())); }
    nearkey_cache* handle() { return handle_; }

private:
    static uint64_t bucket_count(uint64_t keys) {
        uint64_t count = 256;
        while (count * 3 < keys)
            count *= 2;
        return count;
    }

    client::SegmentMemory memory_;
    client::SegmentHost host_;
    std::string value_ = std::string(kValueBytes, 'v');
    nearkey_cache* handle_ = nullptr;
};

using Read = std::function<uint64_t(uint64_t reads)>;  // returns how many were hits

double ns_of(const Read& read, uint64_t reads, uint64_t& hits) {
    const uint64_t begin = thread_ns();
    hits += read(reads);
    return static_cast<double>(thread_ns() - begin) / static_cast<double>(reads);
}

void measure(const std::string& path, const Settings& settings, const Read& read) {
    std::vector<double> times;
    uint64_t hits = 0;
    ns_of(read, settings.reads / 10, hits);
    hits = 0;
    for (int round = 0; round < settings.rounds; ++round)
        times.push_back(ns_of(read, settings.reads, hits));
    std::sort(times.begin(), times.end());
    double load = 0;
    (void)getloadavg(&load, 1);
    std::printf(
        "{\"path\": \"%s\", \"ns\": %.1f, \"least\": %.1f, \"most\": %.1f, "
        "\"hits_percent\": %.2f, \"load\": %.1f}\n",
        path.c_str(), times[times.size() / 2], times.front(), times.back(),
        100.0 * static_cast<double>(hits) / (static_cast<double>(settings.reads) * settings.rounds),
        load);
    std::fflush(stdout);
}

// 1, but only the value says so: of 'v' as of the 'x' that the load client stores.
size_t step_after(const char* value) {
    return 1 + static_cast<size_t>(value[kValueBytes - 1] & 1);
}

Read reads_of_segment(nearkey_cache* handle, const std::vector<KeyText>& keys) {
    return [handle, &keys, next = size_t{0}](uint64_t reads) mutable {
        char value[NEARKEY_VALUE_MAX] = {};
        uint64_t hits = 0;
        for (uint64_t i = 0; i < reads; ++i) {
            const std::string_view name = keys[next % kDraws].view();
            const int64_t size = nearkey_get(handle, name.data(), name.size(), value, sizeof value);
            hits += size == kValueBytes ? 1 : 0;
            next += step_after(value);
        }
        return hits;
    };
}

Read parts_of_segment(nearkey_cache* handle, const std::vector<KeyText>& keys) {
    return [handle, &keys, next = size_t{0}](uint64_t reads) mutable {
        char values[kPartsOfMget][kValueBytes];
        nearkey_slice slices[kPartsOfMget];
        uint64_t hits = 0;
        for (uint64_t i = 0; i < reads / kPartsOfMget; ++i) {
            for (size_t part = 0; part < kPartsOfMget; ++part) {
                const std::string_view name = keys[next++ % kDraws].view();
                slices[part] = {name.data(), name.size(), values[part], kValueBytes, 0};
            }
            if (nearkey_mget(handle, slices, kPartsOfMget) == 0) hits += kPartsOfMget;
        }
        return hits;
    };
}

Read reads_of_map(std::unordered_map<std::string, std::string>& map,
                  const std::vector<KeyText>& keys) {
    return [&map, &keys, next = size_t{0}](uint64_t reads) mutable {
        char value[NEARKEY_VALUE_MAX] = {};
        uint64_t hits = 0;
        for (uint64_t i = 0; i < reads; ++i) {
            const auto found = map.find(std::string(keys[next % kDraws].view()));
            if (found == map.end()) continue;
            std::memcpy(value, found->second.data(), found->second.size());
            ++hits;
            next += step_after(value);
        }
        return hits;
    };
}

// Voids and refills one key after the other, so many a second.
class Writer {
public:
    explicit Writer(Shared& shared) : thread_([this, &shared] { run(shared); }) {}
    ~Writer() {
        is_stopped_ = true;
        thread_.join();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin_;
        std::fprintf(stderr, "writes a second: %.0f\n", static_cast<double>(done_) / took.count());
    }

private:
    void run(Shared& shared) {
        while (!is_stopped_) {
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin_;
            const uint64_t due = static_cast<uint64_t>(took.count() * kWritesPerSecond);
            for (; done_ < due && !is_stopped_; ++done_) {
                shared.remove(done_ % kHotKeys);
                shared.put(done_ % kHotKeys);
            }
        }
    }

    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    std::atomic<bool> is_stopped_{false};
    uint64_t done_ = 0;
    std::thread thread_;
};

void run_keys(const std::string& name, uint64_t count, const KeyDraws& draws,
              const Settings& settings) {
    const std::vector<KeyText> keys = draw_keys(draws);
    const auto is_asked = [&](const std::string& path) {
        return settings.paths.empty() || std::find(settings.paths.begin(), settings.paths.end(),
                                                   path) != settings.paths.end();
    };
    const std::string map_path = "map-" + name;
    const std::string path = "shared-c-" + name;
    if (is_asked(map_path)) {
        std::unordered_map<std::string, std::string> map;
        for (uint64_t i = 0; i < count; ++i)
            map.emplace(KeyText(i).view(), std::string(kValueBytes, 'v'));
        measure(map_path, settings, reads_of_map(map, keys));
    }
    if (!is_asked(path) && !is_asked(path + "-mget") && !is_asked(path + "-writes")) return;
    if (!settings.url.empty()) {
        nearkey_cache* const handle = open_segment(settings.url);
        if (is_asked(path)) measure(path, settings, reads_of_segment(handle, keys));
        if (is_asked(path + "-mget")) {
            measure(path + "-mget", settings, parts_of_segment(handle, keys));
        }
        nearkey_close(handle);
        return;
    }
    Shared shared(count);
    if (is_asked(path)) measure(path, settings, reads_of_segment(shared.handle(), keys));
    if (is_asked(path + "-mget")) {
        measure(path + "-mget", settings, parts_of_segment(shared.handle(), keys));
    }
    if (is_asked(path + "-writes") && count == kHotKeys) {
        Writer writer(shared);
        measure(path + "-writes", settings, reads_of_segment(shared.handle(), keys));
    }
}

// Hits of a process that may make no system call but for its end: the kernel kills it for one.
int run_calls(const Settings& settings) {
    constexpr uint64_t kReads = 5'000'000;
    const std::vector<KeyText> keys = draw_keys(KeyDraws::uniform(kHotKeys));
    nearkey_cache* const handle = open_segment(settings.url);
    const pid_t child = fork();
    if (child == 0) {
        const Read read = reads_of_segment(handle, keys);
        read(1000);  // the first one after a fork looks at the time namespace
        if (!client::allow_only_exit()) _exit(1);
        _exit(read(kReads) > kReads / 1000 * 998 ? 0 : 1);  // samples are no hits
    }
    int status = 0;
    waitpid(child, &status, 0);
    nearkey_close(handle);
    const bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    if (!is_killed && status != 0) {
        std::fprintf(stderr, "not all were hits, or the process ended: status %d\n", status);
        return 1;
    }
    std::printf("{\"calls\": %d}\n", is_killed ? 1 : 0);
    return 0;
}

Settings parse(int count, char** words) {
    Settings settings;
    for (int i = 1; i < count; ++i) {
        const std::string_view word = words[i];
        if (word == "--rounds" && i + 1 < count) {
            settings.rounds = std::atoi(words[++i]);
        } else if (word == "--reads" && i + 1 < count) {
            settings.reads = std::strtoull(words[++i], nullptr, 10);
        } else if (word == "--url" && i + 1 < count) {
            settings.url = words[++i];
        } else {
            settings.paths.emplace_back(word);
        }
    }
    return settings;
}

}  // namespace

}  // namespace nearkey::bench

int main(int argc, char** argv) {
    using namespace nearkey::bench;  // style-ok(using-namespace): a program of one file
    const Settings settings = parse(argc, argv);
    if (settings.paths == std::vector<std::string>{"--calls"}) return run_calls(settings);
    run_keys("hot", kHotKeys, KeyDraws::uniform(kHotKeys), settings);
    run_keys("zipf", kAllKeys, KeyDraws::zipf(kAllKeys, kExponent), settings);
    run_keys("uniform", kAllKeys, KeyDraws::uniform(kAllKeys), settings);
    return 0;
}
