// Log lines are JSON, and a line that can't be written is dropped and counted.
#include "nearkey/base/log.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <cstring>
#include <string>

namespace nearkey {
namespace {

struct Pipe {
    Pipe() { REQUIRE(pipe2(ends, O_CLOEXEC) == 0); }
    ~Pipe() {
        close(ends[0]);
        close(ends[1]);
    }
    // Until not one byte more fits; the descriptor blocks again afterwards.
    void fill() const {
        const int flags = fcntl(ends[1], F_GETFL);
        REQUIRE(fcntl(ends[1], F_SETFL, flags | O_NONBLOCK) == 0);
        const std::string bytes(4096, '.');
        while (write(ends[1], bytes.data(), bytes.size()) > 0) {
        }
        while (write(ends[1], bytes.data(), 1) > 0) {
        }
        REQUIRE(fcntl(ends[1], F_SETFL, flags) == 0);
    }
    // What is there, without waiting for more.
    std::string take() const {
        std::string taken;
        char bytes[65536];
        pollfd watched{ends[0], POLLIN, 0};
        while (poll(&watched, 1, 0) == 1) {
            const ssize_t count = read(ends[0], bytes, sizeof bytes);
            if (count <= 0) break;
            taken.append(bytes, static_cast<size_t>(count));
        }
        return taken;
    }
    int ends[2];
};

TEST_CASE("log: a line is one JSON object with time, level, event and fields in their order") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    log.warning("upstream_lost", {{"reason", "it \"broke\"\n"}, {"count", int64_t{-3}}});
    const std::string line = pipe.take();
    INFO(line);
    CHECK(line.starts_with("{\"time\":\"20"));
    CHECK(
        line.ends_with("Z\",\"level\":\"warning\",\"event\":\"upstream_lost\","
                       "\"reason\":\"it \\\"broke\\\"\\n\",\"count\":-3}\n"));
    CHECK(metrics.log_dropped_total == 0);
}

TEST_CASE("log: what is below its level is not written") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Warning, metrics);
    log.debug("d", {});
    log.info("i", {});
    CHECK(pipe.take().empty());
    log.warning("w", {});
    log.error("e", {});
    const std::string lines = pipe.take();
    CHECK(lines.find("\"event\":\"w\"") != std::string::npos);
    CHECK(lines.find("\"event\":\"e\"") != std::string::npos);
    CHECK(metrics.log_dropped_total == 0);
}

TEST_CASE("log: a pipe that is full drops the line and counts it, and never blocks") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    pipe.fill();
    log.info("dropped", {});
    log.info("dropped", {});
    CHECK(metrics.log_dropped_total == 2);
    CHECK(pipe.take().find("dropped") == std::string::npos);
    log.info("written", {});
    CHECK(pipe.take().find("written") != std::string::npos);
    CHECK(metrics.log_dropped_total == 2);
}

TEST_CASE("log: a disk that is full drops the line and counts it") {
    const int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    Metrics metrics;
    Log log(fd, LogLevel::Info, metrics);
    log.info("x", {});
    CHECK(metrics.log_dropped_total == 1);
    close(fd);
}

TEST_CASE("log: a descriptor that is closed drops the line and counts it") {
    Metrics metrics;
    Log log(-1, LogLevel::Info, metrics);
    log.info("x", {});
    CHECK(metrics.log_dropped_total == 1);
}

TEST_CASE("log: bytes that are not UTF-8 are replaced, the line stays JSON") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    const std::string bytes("a\xff\xc3\0b", 5);
    log.info("e", {{"reason", bytes}});
    const std::string line = pipe.take();
    INFO(line);
    CHECK(line.find("\"reason\":\"a\xef\xbf\xbd\xef\xbf\xbd\\u0000b\"}\n") != std::string::npos);
    CHECK(metrics.log_dropped_total == 0);
}

TEST_CASE("log: a line longer than a pipe takes at once is dropped whole") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    log.info("e", {{"reason", std::string(5000, 'x')}});
    CHECK(pipe.take().empty());
    CHECK(metrics.log_dropped_total == 1);
}

}  // namespace
}  // namespace nearkey
