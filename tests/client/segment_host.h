// A segment, and a thread that hands it out on a Unix socket as nearkey does: for the library's
// tests and benchmarks. The test writes to the segment itself, and decides about the answers.
#pragma once

#include "segment_writer.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace nearkey::client {

uint64_t now_ms();  // of CLOCK_BOOTTIME

// The memory of a segment: a memfd, and this process's map of it.
class SegmentMemory {
public:
    struct Options {
        uint64_t buckets = 1024;
        uint64_t item_bytes = 1 << 20;
        int seals = -1;  // -1: against any change of the size
    };
    explicit SegmentMemory(const Options& options);
    ~SegmentMemory();
    SegmentMemory(const SegmentMemory&) = delete;
    SegmentMemory& operator=(const SegmentMemory&) = delete;

    segment_writer& writer() { return writer_; }
    unsigned char* bytes() const { return writer_.base; }
    uint64_t size() const { return writer_.size; }
    int descriptor() const { return descriptor_; }  // to be written, too
    int read_only() const { return read_only_; }    // what is handed out

    // Stores a value of database 0 that never expires, from source 0.
    void put(const std::string& key, const std::string& value);
    void remove(const std::string& key);

private:
    segment_writer writer_{};
    int descriptor_ = -1;
    int read_only_ = -1;
};

class SegmentHost {
public:
    struct Answer {
        std::string text;
        int descriptor;  // -1: none goes with it
        int copies = 1;  // of the descriptor
    };

    explicit SegmentHost(SegmentMemory& memory);
    ~SegmentHost();
    SegmentHost(const SegmentHost&) = delete;
    SegmentHost& operator=(const SegmentHost&) = delete;

    std::string path() const { return folder_ + "/socket"; }
    std::string url() const { return "unix://" + path(); }
    // What nearkey would say.
    Answer right_answer() const;
    // What it says instead, from then on; null: right_answer(). An empty text: it closes.
    void set_answer(std::function<Answer()> answer);
    void set_memory(SegmentMemory& memory) { memory_ = &memory; }
    int asked() const { return asked_; }

private:
    void serve();
    void answer_one(int client);

    std::atomic<SegmentMemory*> memory_;
    std::mutex lock_;
    std::function<Answer()> answer_;  // under lock_
    std::string folder_;
    int listener_ = -1;
    int stop_[2] = {-1, -1};
    std::atomic<int> asked_{0};
    std::thread thread_;
};

}  // namespace nearkey::client
