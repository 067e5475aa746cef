// The load of the benchmark: clients that each have a batch of requests in flight, on a few
// threads with an epoll set each. It costs clearly less than what it measures, which
// valkey-benchmark does not: at -P 1 that needs more processor time for a request than a server.
//
// Prints one JSON object. Latency is that of a whole batch. The processor time of the watched
// processes is read from /proc/PID/task/*/schedstat (nanoseconds) where the measurement begins,
// after the warm-up, and where it ends. Status 1: a wrong reply, a lost connection, a reply that
// does not come; 2: a wrong command line.
#include "key_draws.h"
#include "latency_histogram.h"
#include "load_client.h"
#include "load_options.h"

#include <fmt/format.h>

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace nearkey::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMs = 50;
// For the replies that are owed at the end, and for each batch when a number of them is asked for.
constexpr auto kSilenceMax = std::chrono::seconds(30);

enum class Phase { WarmUp, Measure, Over };

struct Shared {
    explicit Shared(const LoadOptions& options)
        : plan(options), all_connected(static_cast<std::ptrdiff_t>(options.threads) + 1) {}

    LoadPlan plan;
    std::barrier<> all_connected;
    std::atomic<Phase> phase = Phase::WarmUp;
    std::atomic<uint64_t> taken = 0;  // of options.requests
    std::mutex mutex;
    std::condition_variable ended;
    size_t threads_ended = 0;
};

uint64_t now_ns() {
    return static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
}

// One thread's clients, and what was measured of them.
class Worker {
public:
    Worker(Shared& shared, size_t number)
        : shared_(shared), number_(number), poll_(epoll_create1(EPOLL_CLOEXEC)) {}
    ~Worker() { close(poll_); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void run() {
        const LoadOptions& options = shared_.plan.options;
        for (size_t i = number_; i < options.clients; i += options.threads)
            clients_.push_back(std::make_unique<LoadClient>(shared_.plan, i, poll_));
        shared_.all_connected.arrive_and_wait();
        for (const auto& client : clients_)
            busy_ += start(*client, now_ns()) ? 1 : 0;
        auto heard = Clock::now();
        while (busy_ > 0) {
            if (turn() > 0) {
                heard = Clock::now();
            } else if (Clock::now() - heard > kSilenceMax) {
                fail_run(fmt::format("{} clients are without a reply", busy_));
            }
        }
        const std::lock_guard lock(shared_.mutex);
        ++shared_.threads_ended;
        shared_.ended.notify_one();
    }

    // Any thread may ask; only the worker's own counts.
    uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }
    uint64_t segment_hits() const { return segment_hits_.load(std::memory_order_relaxed); }
    const LatencyHistogram& latencies() const { return latencies_; }

private:
    // Whether there was something to send.
    bool start(LoadClient& client, uint64_t now) {
        const LoadOptions& options = shared_.plan.options;
        uint64_t first = 0;
        if (options.requests > 0) {
            first = shared_.taken.fetch_add(options.pipeline, std::memory_order_relaxed);
            if (first >= options.requests) return false;
        }
        client.start_batch(first, now);
        return true;
    }

    int turn() {
        std::array<epoll_event, 128> events;
        const int count =
            epoll_wait(poll_, events.data(), static_cast<int>(events.size()), kPollMs);
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events[static_cast<size_t>(i)];
            auto& client = *static_cast<LoadClient*>(event.data.ptr);
            if (event.events & EPOLLOUT) client.continue_sending();
            if ((event.events & ~EPOLLOUT) && client.receive(scratch_)) finish(client);
        }
        return count;
    }

    void finish(LoadClient& client) {
        const uint64_t now = now_ns();
        const Phase phase = shared_.phase.load(std::memory_order_relaxed);
        if (phase == Phase::Measure) {
            requests_.store(requests() + shared_.plan.options.pipeline, std::memory_order_relaxed);
            latencies_.add(now - client.batch_start_ns());
            segment_hits_.store(segment_hits() + client.segment_hits(), std::memory_order_relaxed);
        }
        if (phase == Phase::Over || !start(client, now)) --busy_;
    }

    Shared& shared_;
    size_t number_;
    int poll_;
    std::vector<std::unique_ptr<LoadClient>> clients_;
    size_t busy_ = 0;
    std::vector<char> scratch_ = std::vector<char>(size_t{1} << 18);
    std::atomic<uint64_t> requests_ = 0;      // that were sent
    std::atomic<uint64_t> segment_hits_ = 0;  // requests that needed not be
    LatencyHistogram latencies_;
};

uint64_t cpu_ns_of(int process) {
    uint64_t sum = 0;
    std::error_code error;
    const std::string folder = fmt::format("/proc/{}/task", process);
    for (const auto& task : std::filesystem::directory_iterator(folder, error)) {
        uint64_t on_processor = 0;
        std::ifstream(task.path() / "schedstat") >> on_processor;
        sum += on_processor;
    }
    if (error) fail_run(fmt::format("process {} is gone", process));
    return sum;
}

std::vector<uint64_t> cpu_ns_of_all(const std::vector<int>& processes) {
    std::vector<uint64_t> times;
    for (const int process : processes)
        times.push_back(cpu_ns_of(process));
    return times;
}

double own_cpu_s() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Result {
    double seconds = 0;
    double own_cpu_s = 0;
    std::vector<uint64_t> cpu_ns;
};

using Workers = std::vector<std::unique_ptr<Worker>>;

uint64_t requests_of(const Workers& workers) {
    uint64_t sum = 0;
    for (const auto& worker : workers)
        sum += worker->requests();
    return sum;
}

// Waits through the warm-up and the measurement; what was used between its two ends.
Result measure(Shared& shared, const Workers& workers) {
    const LoadOptions& options = shared.plan.options;
    std::this_thread::sleep_for(std::chrono::duration<double>(options.warm_up_s));
    Result result;
    const std::vector<uint64_t> before = cpu_ns_of_all(options.watched);
    const double own_before = own_cpu_s();
    const auto start = Clock::now();
    shared.phase = Phase::Measure;
    if (options.seconds > 0) {
        std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
        while (requests_of(workers) == 0)  // A worker ends the run if nothing comes at all.
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        shared.phase = Phase::Over;
    } else {
        std::unique_lock lock(shared.mutex);
        shared.ended.wait(lock, [&] { return shared.threads_ended == options.threads; });
    }
    result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    result.own_cpu_s = own_cpu_s() - own_before;
    result.cpu_ns = cpu_ns_of_all(options.watched);
    for (size_t i = 0; i < before.size(); ++i)
        result.cpu_ns[i] -= before[i];
    return result;
}

int run_load(const LoadOptions& options) {
    Shared shared(options);
    // A number of requests is counted from the first one on.
    if (options.requests > 0) shared.phase = Phase::Measure;
    Workers workers;
    std::vector<std::thread> threads;
    for (size_t i = 0; i < options.threads; ++i) {
        workers.push_back(std::make_unique<Worker>(shared, i));
        threads.emplace_back([worker = workers.back().get()] { worker->run(); });
    }
    shared.all_connected.arrive_and_wait();
    const Result result = measure(shared, workers);
    for (std::thread& thread : threads)
        thread.join();
    LatencyHistogram latencies;
    uint64_t segment_hits = 0;
    for (const auto& worker : workers) {
        latencies.merge(worker->latencies());
        segment_hits += worker->segment_hits();
    }
    const uint64_t requests = requests_of(workers);
    const auto us = [&](double share) { return latencies.percentile_ns(share) / 1000; };
    fmt::print(
        R"({{"requests": {}, "segment_hits": {}, "seconds": {:.6f}, "requests_per_s": {:.1f}, )"
        R"("p50_us": {:.2f}, "p99_us": {:.2f}, "p999_us": {:.2f}, "max_us": {:.2f}, )"
        R"("client_us": {:.4f}, "watched_cpu_ns": [{}]}})"
        "\n",
        requests, segment_hits, result.seconds, static_cast<double>(requests) / result.seconds,
        us(0.5), us(0.99), us(0.999), us(1.0),
        result.own_cpu_s * 1e6 / static_cast<double>(requests), fmt::join(result.cpu_ns, ", "));
    return 0;
}

}  // namespace
}  // namespace nearkey::bench

int main(int argc, char** argv) {
    using namespace nearkey::bench;  // style-ok(using-namespace): all of main() is about it
    const std::vector<const char*> arguments(argv + 1, argv + argc);
    if (arguments.size() == 1 && std::string_view(arguments[0]) == "--help") {
        fmt::print("{}", kLoadUsage);
        return 0;
    }
    const auto parsed = parse_load_options(arguments);
    if (const auto* const wrong = std::get_if<std::string>(&parsed)) {
        fmt::print(stderr, "nearkey_load_client: {}\n{}", *wrong, kLoadUsage);
        return 2;
    }
    return run_load(std::get<LoadOptions>(parsed));
}
