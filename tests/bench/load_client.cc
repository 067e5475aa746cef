// A load of GETs that costs little itself: N clients on a Unix socket, each with P requests in
// flight, on T threads, for S seconds. valkey-benchmark needs more processor time for a request at
// -P 1 than either server, so that with it the client is what is measured.
//
//   nearkey_load_client SOCKET CLIENTS PIPELINE THREADS SECONDS KEYS VALUE_BYTES
//
// Every key key:000000000000 ... must hold VALUE_BYTES bytes. Prints
// requests,seconds,p50_us,p99_us,own_cpu_us (of all threads, per request); status 1 on a wrong
// reply.
#include <fmt/format.h>

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kDigits = 12;
constexpr std::string_view kBeforeKey = "*2\r\n$3\r\nGET\r\n$16\r\nkey:";

struct Load {
    std::string path;
    size_t clients;
    size_t pipeline;
    size_t threads;
    double seconds;
    uint64_t keys;
    size_t value_bytes;
};

// Counts of latencies by their binary logarithm and the three bits behind it.
struct Histogram {
    static constexpr size_t kBuckets = 64 * 8;
    std::array<uint64_t, kBuckets> counts{};

    void add(uint64_t ns) {
        const auto log = static_cast<size_t>(std::bit_width(ns | 8) - 1);
        ++counts[log * 8 + ((ns >> (log - 3)) & 7)];
    }
    // In microseconds, the lower bound of its bucket.
    double percentile(double share) const {
        uint64_t total = 0;
        for (const uint64_t count : counts)
            total += count;
        auto left = static_cast<uint64_t>(static_cast<double>(total) * share);
        for (size_t i = 0; i < kBuckets; ++i) {
            if (counts[i] > left) return static_cast<double>((8 + i % 8) << (i / 8 - 3)) / 1000;
            left -= counts[i];
        }
        return 0;
    }
};

struct Outcome {
    uint64_t requests = 0;
    Histogram latencies;
};

[[noreturn]] void fail(const std::string& what) {
    fmt::print(stderr, "nearkey_load_client: {}\n", what);
    std::exit(1);
}

class Client {
public:
    Client(const Load& load, uint64_t seed) : load_(load), random_(seed * 2 + 1) {
        fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (fd_ < 0 || load.path.size() >= sizeof address.sun_path) fail("no socket");
        std::copy(load.path.begin(), load.path.end(), address.sun_path);
        if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
            fail("can't connect to " + load.path);
        for (size_t i = 0; i < load.pipeline; ++i) {
            request_ += kBeforeKey;
            request_ += std::string(kDigits, '0') + "\r\n";
        }
        header_ = fmt::format("${}\r\n", load.value_bytes);
    }
    ~Client() { close(fd_); }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    int fd() const { return fd_; }

    void send() {
        const size_t one = request_.size() / load_.pipeline;
        for (size_t i = 0; i < load_.pipeline; ++i) {
            random_ ^= random_ << 13;  // xorshift64 (Marsaglia 2003)
            random_ ^= random_ >> 7;
            random_ ^= random_ << 17;
            uint64_t key = random_ % load_.keys;
            char* digit = request_.data() + i * one + kBeforeKey.size() + kDigits;
            for (size_t d = 0; d < kDigits; ++d, key /= 10)
                *--digit = static_cast<char>('0' + key % 10);
        }
        awaited_ = load_.pipeline * (header_.size() + load_.value_bytes + 2);
        is_first_ = true;
        sent_ = Clock::now();
        if (::send(fd_, request_.data(), request_.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(request_.size()))
            fail("the server does not take a request");
    }

    // Whether everything that was asked for has come.
    bool receive(std::vector<char>& scratch, Histogram& latencies) {
        const ssize_t size = recv(fd_, scratch.data(), scratch.size(), 0);
        if (size <= 0) fail("the connection was closed");
        const auto count = static_cast<size_t>(size);
        if (is_first_ &&
            std::memcmp(scratch.data(), header_.data(), std::min(count, header_.size())) != 0)
            fail("not the expected reply: " +
                 std::string(scratch.data(), std::min<size_t>(count, 80)));
        if (count > awaited_) fail("more than was asked for");
        is_first_ = false;
        awaited_ -= count;
        if (awaited_ > 0) return false;
        const auto took = std::chrono::nanoseconds(Clock::now() - sent_).count();
        latencies.add(static_cast<uint64_t>(took));
        return true;
    }

private:
    const Load& load_;
    uint64_t random_;
    int fd_;
    std::string request_;
    std::string header_;
    size_t awaited_ = 0;
    bool is_first_ = true;
    Clock::time_point sent_;
};

Outcome run_thread(const Load& load, size_t number, const std::atomic<bool>& is_over) {
    Outcome outcome;
    std::vector<std::unique_ptr<Client>> clients;
    const int poll = epoll_create1(0);
    for (size_t i = number; i < load.clients; i += load.threads) {
        clients.push_back(std::make_unique<Client>(load, i + 1));
        epoll_event event{.events = EPOLLIN, .data = {.ptr = clients.back().get()}};
        epoll_ctl(poll, EPOLL_CTL_ADD, clients.back()->fd(), &event);
    }
    std::vector<char> scratch(size_t{1} << 18);
    std::array<epoll_event, 64> events{};
    for (const auto& client : clients)
        client->send();
    while (!is_over.load(std::memory_order_relaxed)) {
        const int count = epoll_wait(poll, events.data(), static_cast<int>(events.size()), 100);
        for (int i = 0; i < count; ++i) {
            auto* client = static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
            if (!client->receive(scratch, outcome.latencies)) continue;
            outcome.requests += load.pipeline;
            client->send();
        }
    }
    close(poll);
    return outcome;
}

double own_cpu_s() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 8) fail("SOCKET CLIENTS PIPELINE THREADS SECONDS KEYS VALUE_BYTES");
    const Load load{argv[1],
                    std::stoul(argv[2]),
                    std::stoul(argv[3]),
                    std::stoul(argv[4]),
                    std::stod(argv[5]),
                    std::stoull(argv[6]),
                    std::stoul(argv[7])};
    std::atomic<bool> is_over = false;
    std::vector<Outcome> outcomes(load.threads);
    std::vector<std::thread> threads;
    const auto start = Clock::now();
    for (size_t i = 0; i < load.threads; ++i) {
        threads.emplace_back([&, i] { outcomes[i] = run_thread(load, i, is_over); });
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(load.seconds));
    is_over = true;
    for (std::thread& thread : threads)
        thread.join();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    Outcome all;
    for (const Outcome& outcome : outcomes) {
        all.requests += outcome.requests;
        for (size_t i = 0; i < Histogram::kBuckets; ++i)
            all.latencies.counts[i] += outcome.latencies.counts[i];
    }
    const auto requests = static_cast<double>(std::max<uint64_t>(all.requests, 1));
    fmt::print("{},{:.3f},{:.1f},{:.1f},{:.3f}\n", all.requests, took,
               all.latencies.percentile(0.5), all.latencies.percentile(0.99),
               own_cpu_s() * 1e6 / requests);
    return 0;
}
