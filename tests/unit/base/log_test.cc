// Log lines are JSON or text, repeats are counted, and so is a line that can't be written.
#include "nearkey/base/log.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cstring>
#include <string>

namespace nearkey::log_test {
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

// One byte a character, several, and what is escaped.
constexpr const char* kCharacters[] = {"x", "\"", "\xc3\xa9", "\xf0\x9f\x98\x80", "\x01"};

std::string text_of_size(const std::string& character, size_t size) {
    std::string text;
    while (text.size() < size)
        text += character;
    return text;
}

TEST_CASE("log: of a line longer than a pipe takes at once the longest text is told in part") {
    const Pipe pipe;
    Metrics metrics;
    for (const std::string character : kCharacters) {
        for (const size_t size : {4000, 4096, 4097, 5000, 9001, 100'000}) {
            for (const LogFormat format : {LogFormat::Json, LogFormat::Text}) {
                CAPTURE(character);
                CAPTURE(size);
                Log log(pipe.ends[1], LogLevel::Info, metrics);
                log.set_format(format, LogTarget::Plain);
                const std::string text = text_of_size(character, size);
                log.info("e", {{"kept", "short text"}, {"reason", text}, {"n", int64_t{7}}});
                const std::string line = pipe.take();
                CHECK(line.size() <= 4096);
                CHECK(line.size() > 1900);
                CHECK(line.ends_with('\n'));
                CHECK(line.find("short text") != std::string::npos);
                // No half character.
                CHECK(line.find("\xef\xbf\xbd") == std::string::npos);
                CHECK(line.find("\\ufffd") == std::string::npos);
                if (size > 4096) CHECK(line.find("...") != std::string::npos);
                if (format == LogFormat::Json) CHECK(nlohmann::json::accept(line));
            }
        }
    }
    CHECK(metrics.log_dropped_total == 0);
}

TEST_CASE("log: a line that no text makes too long is dropped whole") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    log.info(std::string(5000, 'e'), {{"text", "short"}, {"n", int64_t{7}}});
    CHECK(pipe.take().empty());
    CHECK(metrics.log_dropped_total == 1);
}

// What Log takes for the time.
uint64_t manual_ms = 0;

struct Repeating : Pipe {
    Repeating() {
        manual_ms = 1'000'000;
        log.set_clock([] { return manual_ms; });
    }
    size_t lines_of(const std::string& part) const {
        const std::string taken = take();
        size_t lines = 0;
        for (size_t at = 0; (at = taken.find(part, at)) != std::string::npos; ++at)
            ++lines;
        return lines;
    }
    Metrics metrics;
    Log log{ends[1], LogLevel::Info, metrics};
};

TEST_CASE("log: text is a line of time, level, event and fields; what is no word is quoted") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    log.set_format(LogFormat::Text, LogTarget::Plain);
    log.warning("upstream_lost", {{"reason", "it \"broke\"\n"},
                                  {"upstream", "valkey://10.0.0.7"},
                                  {"empty", ""},
                                  {"odd", "a=b"},
                                  {"escape", "\x1b[2J\xff"},
                                  {"count", int64_t{-3}}});
    const std::string line = pipe.take();
    INFO(line);
    CHECK(line.starts_with("20"));
    CHECK(line.substr(23) ==
          "Z warning upstream_lost reason=\"it \\\"broke\\\"\\n\" upstream=valkey://10.0.0.7 "
          "empty=\"\" odd=\"a=b\" escape=\"\\u001b[2J\\ufffd\" count=-3\n");
}

TEST_CASE("log: for the journal each line begins with its priority") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Debug, metrics);
    log.set_format(LogFormat::Text, LogTarget::Journal);
    log.debug("d", {});
    CHECK(pipe.take().starts_with("<7>20"));
    log.info("i", {});
    CHECK(pipe.take().starts_with("<6>20"));
    log.warning("w", {});
    CHECK(pipe.take().starts_with("<4>20"));
    log.set_format(LogFormat::Json, LogTarget::Journal);
    log.error("e", {});
    CHECK(pipe.take().starts_with("<3>{\"time\""));
}

TEST_CASE("log: the journal is known by device and inode") {
    const Pipe pipe;
    struct stat found {};
    REQUIRE(fstat(pipe.ends[1], &found) == 0);
    const std::string inode = std::to_string(found.st_ino);
    const std::string stream = std::to_string(found.st_dev) + ":" + inode;
    CHECK(log_target(pipe.ends[1], stream) == LogTarget::Journal);
    CHECK(log_target(pipe.ends[1], stream + "0") == LogTarget::Plain);
    CHECK(log_target(pipe.ends[1], "") == LogTarget::Plain);
    CHECK(log_target(-1, stream) == LogTarget::Plain);
}

TEST_CASE("log: its level changes while it runs, and levels have names") {
    const Pipe pipe;
    Metrics metrics;
    Log log(pipe.ends[1], LogLevel::Info, metrics);
    LogLevel level = LogLevel::Info;
    for (const char* const name : {"debug", "info", "warning", "error"}) {
        REQUIRE(parse_log_level(name, level));
        CHECK(to_text(level) == name);
    }
    CHECK_FALSE(parse_log_level("loud", level));
    CHECK_FALSE(parse_log_level("", level));
    log.set_level(level);
    log.warning("w", {});
    CHECK(pipe.take().empty());
    log.set_level(LogLevel::Debug);
    log.debug("d", {});
    CHECK_FALSE(pipe.take().empty());
}

TEST_CASE("log: repeats are counted, and said once when their period is over") {
    Repeating rig;
    for (uint32_t i = 0; i < Log::kBurst + 412; ++i)
        rig.log.warning("flood", {{"session", int64_t{i}}});
    rig.log.error("flood", {});
    rig.log.warning("other", {});
    CHECK(rig.metrics.log_repeats_total == 412);
    const std::string first = rig.take();
    CHECK(first.find("\"more\"") == std::string::npos);
    CHECK(first.find("\"session\":19}") != std::string::npos);
    CHECK(first.find("\"session\":20}") == std::string::npos);
    CHECK(first.find("\"level\":\"error\",\"event\":\"flood\"") != std::string::npos);
    CHECK(first.find("\"event\":\"other\"") != std::string::npos);

    manual_ms += Log::kPeriodMs - 1;
    rig.log.say_repeats();
    CHECK(rig.take().empty());
    manual_ms += 1;
    rig.log.info("next", {});
    const std::string then = rig.take();
    INFO(then);
    CHECK(then.find("\"level\":\"warning\",\"event\":\"flood\",\"more\":412,\"seconds\":60}\n") !=
          std::string::npos);
    CHECK(then.find("\"more\"") == then.rfind("\"more\""));
    CHECK(then.find("\"more\"") < then.find("\"event\":\"next\""));
    // A new period, with lines of its own.
    rig.log.warning("flood", {});
    CHECK(rig.lines_of("flood") == 1);
}

TEST_CASE("log: a timer's call says the repeats when no line comes") {
    Repeating rig;
    for (uint32_t i = 0; i < Log::kBurst + 1; ++i)
        rig.log.info("flood", {});
    rig.take();
    manual_ms += Log::kPeriodMs;
    rig.log.say_repeats();
    CHECK(rig.lines_of("\"more\":1,") == 1);
    manual_ms += Log::kPeriodMs;
    rig.log.say_repeats();
    CHECK(rig.take().empty());
}

TEST_CASE("log: its end says the repeats") {
    const Pipe pipe;
    Metrics metrics;
    {
        Log log(pipe.ends[1], LogLevel::Info, metrics);
        for (uint32_t i = 0; i < Log::kBurst + 5; ++i)
            log.info("flood", {});
        pipe.take();
    }
    CHECK(pipe.take().find("\"more\":5,") != std::string::npos);
}

TEST_CASE("log: more events than it follows take the places of the oldest, nothing is lost") {
    Repeating rig;
    for (uint32_t i = 0; i < Log::kBurst + 3; ++i)
        rig.log.info("first", {});
    rig.take();
    for (size_t i = 0; i < Log::kRepeatsMax; ++i)
        rig.log.info("event" + std::to_string(i), {});
    const std::string lines = rig.take();
    CHECK(lines.find("\"event\":\"first\",\"more\":3,") != std::string::npos);
    CHECK(lines.find("\"event\":\"event63\"") != std::string::npos);
    // Its count began anew.
    rig.log.info("first", {});
    CHECK(rig.lines_of("\"event\":\"first\"") == 1);
}

TEST_CASE("log: a level that is not written is not counted") {
    Repeating rig;
    for (uint32_t i = 0; i < 2 * Log::kBurst; ++i)
        rig.log.debug("quiet", {});
    CHECK(rig.metrics.log_repeats_total == 0);
}

}  // namespace
}  // namespace nearkey::log_test
