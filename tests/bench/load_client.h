// One connection of the load: sends a batch, checks the replies, sends the next.
// Owned by the thread that drives it. The socket is non-blocking and in that thread's epoll set;
// a batch that the socket does not take at once is continued when it is writable again.
#pragma once

#include "batch.h"
#include "key_draws.h"
#include "load_options.h"

#include "nearkey/client.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nearkey::bench {

// What all clients of a run share, and none changes.
struct LoadPlan {
    explicit LoadPlan(const LoadOptions& chosen);
    ~LoadPlan() { nearkey_close(segment); }
    LoadPlan(const LoadPlan&) = delete;
    LoadPlan& operator=(const LoadPlan&) = delete;

    LoadOptions options;
    std::vector<BatchShape> shapes;
    KeyDraws draws;
    // Another one in each run: with the same keys in the same order, a cache would know them all.
    uint64_t seed;
    std::string value;  // with its CRLF; empty where values stand in the shapes' text
    nearkey_cache* segment = nullptr;  // asked first; null: none is
};

// Prints the reason and ends the process with status 1: a run with an error has no result.
[[noreturn]] void fail_run(const std::string& reason);

class LoadClient {
public:
    // Connects, or fails the run.
    LoadClient(const LoadPlan& plan, size_t number, int poll);
    ~LoadClient();
    LoadClient(const LoadClient&) = delete;
    LoadClient& operator=(const LoadClient&) = delete;

    // REQUIRES: no batch is under way. `first`: how many requests of a
    // sequence went before.
    void start_batch(uint64_t first, uint64_t now_ns);
    void continue_sending();
    // Whether the batch is complete now. Reads once.
    bool receive(std::span<char> scratch);
    uint64_t batch_start_ns() const { return start_ns_; }
    // Requests before the last batch that shared memory answered.
    uint64_t segment_hits() const { return segment_hits_; }

private:
    bool is_sent() const { return sent_ == total_bytes_; }
    long send_once();
    void read_segment();
    void watch_writable(uint32_t events);

    const LoadPlan& plan_;
    int poll_;
    int fd_;
    uint64_t random_;
    size_t turn_;  // of the plan's shapes
    std::string text_;
    const BatchShape* shape_ = nullptr;
    size_t sent_ = 0;
    size_t total_bytes_ = 0;
    uint32_t watched_;
    ReplyCursor cursor_;
    uint64_t start_ns_ = 0;
    uint64_t segment_hits_ = 0;
};

}  // namespace nearkey::bench
