// libnearkey-client's functions, against a thread that hands out a segment made by hand.
#include "nearkey/client.h"

#include "handles.h"
#include "nearkey/cache/segment.h"
#include "segment_host.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace nearkey::client {

namespace {

size_t open_descriptors() {
    size_t count = 0;
    for (int descriptor = 0; descriptor < 1024; ++descriptor)
        count += fcntl(descriptor, F_GETFD) >= 0 ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("client: a hit has the value, and what is no hit says why") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "value");
    const Handle cache = open_handle(host.url());
    REQUIRE(cache);
    CHECK(why_off(cache) == "");
    CHECK(get(cache, "k") == Got{5, "value"});
    CHECK(get(cache, "other") == Got{NEARKEY_MISS, ""});
    char small[4];
    CHECK(nearkey_get(cache.get(), "k", 1, small, sizeof small) == 5);
    segment_writer_set_source(&memory.writer(), 0, 0);
    CHECK(get(cache, "k").result == NEARKEY_STALE);
    segment_writer_set_on(&memory.writer(), 0);
    CHECK(get(cache, "k").result == NEARKEY_OFF);
    CHECK(why_off(cache).find("upgrade") != std::string::npos);
    const nearkey_info_t info = info_of(cache);
    CHECK(info.hits == 2);
    CHECK(info.misses == 1);
    CHECK(info.stale == 1);
    CHECK(info.off == 1);
    CHECK(info.incarnation == 0x1020304050607080);
    CHECK(info.clock_ns > 0);
}

TEST_CASE("client: the database is that of the URL") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    segment_reply reply{};
    reply.key = "k";
    reply.key_size = 1;
    reply.value = "two";
    reply.value_size = 3;
    reply.database = 2;
    reply.deadline_ms = UINT64_MAX;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(get(open_handle(host.url()), "k").result == NEARKEY_MISS);
    CHECK(get(open_handle(host.url() + "?db=2"), "k") == Got{3, "two"});
    CHECK(get(open_handle(host.path()), "k").result == NEARKEY_MISS);
}

TEST_CASE("client: a URL that is none is refused") {
    for (const char* url :
         {"", "redis://localhost", "unix://", "unix://relative", "nearkey.sock",
          "unix:///a?db=", "unix:///a?db=x", "unix:///a?db=70000", "unix:///a?password=x",
          "unix:///a%0", "/a%00b", "unix:///a%00b", "unix:///a%zzb"}) {
        CAPTURE(url);
        errno = 0;
        const Handle cache = open_handle(url);
        if (std::string(url) == "/a%00b") {
            CHECK(cache);  // A path as it is.
            continue;
        }
        CHECK(!cache);
        CHECK(errno == EINVAL);
    }
    CHECK(!open_handle("/" + std::string(107, 'x')));
    CHECK(nearkey_open(nullptr, nullptr) == nullptr);
    nearkey_close(nullptr);
}

TEST_CASE("client: %XX in a URL is a byte of the path") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    std::string url = "unix://";
    for (const char byte : host.path()) {
        char code[4];
        std::snprintf(code, sizeof code, byte < 'm' ? "%%%02x" : "%%%02X", byte);
        url += byte == '/' && url.size() == 7 ? std::string("/") : std::string(code);
    }
    if (url.size() < 500) CHECK(why_off(open_handle(url)) == "");
}

TEST_CASE("client: options that an older program does not know have their defaults") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("k", "1");
    const nearkey_options none{0, 1, 1};  // of size 0: nothing of it is read
    const Handle cache{nearkey_open(host.url().c_str(), &none), &nearkey_close};
    int samples = 0;
    for (int i = 0; i < 1024; ++i)
        samples += get(cache, "k").result == NEARKEY_SAMPLE ? 1 : 0;
    CHECK(samples < 512);
    nearkey_info_t info{};
    info.size = offsetof(nearkey_info_t, misses);
    info.misses = 77;
    nearkey_info(cache.get(), &info);
    CHECK(info.hits > 0);
    CHECK(info.misses == 77);
}

TEST_CASE("client: one hit in sample_every is nearkey's, whatever is read in turn") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    constexpr int kEvery = 16;
    for (int i = 0; i < kEvery; ++i)
        memory.put("key" + std::to_string(i), "1");
    const Handle cache = open_handle(host.url(), kEvery);
    std::array<int, kEvery> samples{};
    constexpr int kReads = 64'000;
    for (int i = 0; i < kReads; ++i) {
        const int key = i % kEvery;
        const Got got = get(cache, "key" + std::to_string(key));
        samples[static_cast<size_t>(key)] += got.result == NEARKEY_SAMPLE ? 1 : 0;
    }
    int sum = 0;
    for (const int count : samples) {
        CHECK(count > kReads / kEvery / kEvery / 2);
        sum += count;
    }
    CHECK(sum > kReads / kEvery * 9 / 10);
    CHECK(sum < kReads / kEvery * 11 / 10);
    CHECK(info_of(cache).samples == static_cast<uint64_t>(sum));
    CHECK(info_of(cache).hits + info_of(cache).samples == kReads);
}

TEST_CASE("client: MGET is all or nothing") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    memory.put("a", "1");
    memory.put("b", "22");
    const Handle cache = open_handle(host.url());
    char values[3][4];
    nearkey_slice slices[3] = {
        {"a", 1, values[0], 4, 0}, {"b", 1, values[1], 4, 0}, {"a", 1, values[2], 4, 0}};
    CHECK(nearkey_mget(cache.get(), slices, 3) == 0);
    CHECK(slices[0].result == 1);
    CHECK(slices[1].result == 2);
    CHECK(std::string(values[1], 2) == "22");
    CHECK(info_of(cache).hits == 3);
    slices[1].capacity = 1;
    CHECK(nearkey_mget(cache.get(), slices, 3) == NEARKEY_TOO_LARGE);
    CHECK(slices[1].result == 2);
    slices[1].key = "x";
    CHECK(nearkey_mget(cache.get(), slices, 3) == NEARKEY_MISS);
    CHECK(slices[0].result == NEARKEY_MISS);
    CHECK(nearkey_mget(cache.get(), slices, 0) == NEARKEY_MISS);
    std::vector<nearkey_slice> many(NEARKEY_MGET_MAX + 1, {"a", 1, values[0], 4, 0});
    CHECK(nearkey_mget(cache.get(), many.data(), NEARKEY_MGET_MAX) == 0);
    CHECK(nearkey_mget(cache.get(), many.data(), many.size()) == NEARKEY_MISS);
}

TEST_CASE("client: without a segment every read is off, and says why") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    struct Case {
        const char* answer;
        const char* why;
    };
    for (const Case& one : {
             Case{"-ERR unknown command 'NEARKEY', with args beginning with: 'SHM' \r\n",
                  "no nearkey"},
             Case{"-ERR shared memory is off (listener.shared_memory)\r\n",
                  "listener.shared_memory"},
             Case{"-NOPERM\r\n", "refused"},
             Case{"+OK\r\n", "not understood"},
             Case{"+OK 1 0123456789abcdef 5 0\r\n", "not understood"},  // and no descriptor
             Case{"+OK 2 x y z\r\n", "layout"},
             Case{"$5\r\nhello\r\n", "not understood"},
             Case{"", "closed the connection"},
         }) {
        CAPTURE(one.answer);
        host.set_answer([&] { return SegmentHost::Answer{one.answer, -1}; });
        const Handle cache = open_handle(host.url());
        REQUIRE(cache);
        CHECK(get(cache, "k").result == NEARKEY_OFF);
        CHECK(why_off(cache).find(one.why) != std::string::npos);
        CHECK(info_of(cache).incarnation == 0);
    }
    const std::string endless(4096, 'x');
    host.set_answer([&] { return SegmentHost::Answer{"+OK 1 " + endless, -1}; });
    CHECK(why_off(open_handle(host.url())).find("not understood") != std::string::npos);
    CHECK(why_off(open_handle("/nowhere/at/all")).find("not there") != std::string::npos);
}

TEST_CASE("client: a daemon that does not answer is waited for no longer than timeout_ms") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    host.set_answer([&] { return SegmentHost::Answer{"+OK 1", -1}; });
    const auto begin = std::chrono::steady_clock::now();
    const Handle cache = open_handle(host.url(), 0, 50);
    CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(49));
    CHECK(why_off(cache).find("in time") != std::string::npos);
}

TEST_CASE("client: another clock than its own keeps it off") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    for (const int64_t offset_ns : {int64_t{-10'000'000'000}, int64_t{10'000'000'000}}) {
        host.set_answer([&] {
            const uint64_t now = now_ms() * 1'000'000 + static_cast<uint64_t>(offset_ns);
            return SegmentHost::Answer{"+OK 1 1020304050607080 " + std::to_string(now) + " 0\r\n",
                                       memory.read_only()};
        });
        CHECK(why_off(open_handle(host.url())).find("time namespace") != std::string::npos);
    }
}

TEST_CASE("client: it reads where the socket's clients begin, unless the URL has a database") {
    SegmentMemory first({});
    SegmentMemory second({});
    segment_reply reply = segment_reply_of("k", 1, "three", 5);
    reply.database = 3;
    for (SegmentMemory* const memory : {&first, &second}) {
        memory->put("k", "zero");
        REQUIRE(segment_writer_put(&memory->writer(), &reply) == 0);
    }
    SegmentHost host(first);
    const auto set_database = [&](const std::string& database) {
        host.set_answer([&host, database] {
            SegmentHost::Answer answer = host.right_answer();
            answer.text.replace(answer.text.size() - 3, 1, database);
            return answer;
        });
    };
    set_database("3");
    const Handle cache = open_handle(host.url());
    const Handle named = open_handle(host.url() + "?db=0");
    CHECK(get(cache, "k").value == "three");
    CHECK(get(named, "k").value == "zero");
    segment_writer_set_over(&first.writer());
    host.set_memory(second);
    set_database("0");
    while (nearkey_refresh(named.get()) == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(get(named, "k").value == "zero");
    while (why_off(cache).find("another database") == std::string::npos) {
        REQUIRE(nearkey_refresh(cache.get()) == 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (const char* const wrong : {"", "65536", "-1", "x", "1 2"}) {
        set_database(wrong);
        CHECK(why_off(open_handle(host.url())).find("not understood") != std::string::npos);
    }
}

TEST_CASE("client: a segment that could shrink under its readers is refused") {
    for (const int seals : {0, F_SEAL_GROW, F_SEAL_SHRINK}) {
        SegmentMemory memory({.seals = seals});
        SegmentHost host(memory);
        CHECK(why_off(open_handle(host.url())).find("seals") != std::string::npos);
    }
    SegmentMemory memory({});
    SegmentHost host(memory);
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    host.set_answer([&] { return SegmentHost::Answer{host.right_answer().text, pipes[0]}; });
    CHECK(why_off(open_handle(host.url())).find("seals") != std::string::npos);
    close(pipes[0]);
    close(pipes[1]);
}

TEST_CASE("client: a segment whose header does not fit is refused") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    host.set_answer([&] {
        SegmentHost::Answer answer = host.right_answer();
        answer.text.replace(answer.text.find("1020304"), 7, "1111111");
        return answer;
    });
    CHECK(why_off(open_handle(host.url())).find("fit together") != std::string::npos);
    host.set_answer(nullptr);
    ++memory.bytes()[8];  // the layout
    CHECK(why_off(open_handle(host.url())).find("fit together") != std::string::npos);
}

TEST_CASE("client: no descriptor is left open, however many were sent") {
    SegmentMemory memory({});
    SegmentHost host(memory);
    const size_t before = open_descriptors();
    for (const int copies : {1, 3, 8}) {
        host.set_answer([&] {
            SegmentHost::Answer answer = host.right_answer();
            answer.copies = copies;
            return answer;
        });
        (void)open_handle(host.url());
        host.set_answer([&] {
            return SegmentHost::Answer{"-ERR no\r\n", memory.read_only(), copies};
        });
        (void)open_handle(host.url());
    }
    // The host closes its end a little later than the client.
    while (open_descriptors() != before)
        std::this_thread::yield();
    CHECK(open_descriptors() == before);
}

TEST_CASE("client: after a segment is over it asks anew, once a second at most") {
    SegmentMemory first({});
    SegmentMemory second({});
    SegmentHost host(first);
    first.put("k", "1");
    second.put("k", "2");
    const Handle cache = open_handle(host.url());
    CHECK(get(cache, "k").value == "1");
    CHECK(nearkey_refresh(cache.get()) == 1);
    CHECK(host.asked() == 1);
    host.set_memory(second);
    segment_writer_set_over(&first.writer());
    CHECK(get(cache, "k").result == NEARKEY_OFF);
    CHECK(why_off(cache).find("ended") != std::string::npos);
    const auto begin = std::chrono::steady_clock::now();
    int calls = 0;
    while (nearkey_refresh(cache.get()) == 0)
        ++calls;
    CHECK(calls > 100);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(60));
    CHECK(host.asked() == 2);
    CHECK(get(cache, "k").value == "2");
    CHECK(why_off(cache) == "");
}

TEST_CASE(
    "client: the memory of a mapping that was replaced is given back, its readers see zeros") {
    auto first = std::make_unique<SegmentMemory>(SegmentMemory::Options{});
    SegmentMemory second({});
    SegmentHost host(*first);
    const auto mapped = [] {
        std::ifstream maps("/proc/self/maps");
        std::string line;
        int count = 0;
        while (std::getline(maps, line))
            count += line.find("memfd:nearkey") != std::string::npos &&
                     line.find("r--s") != std::string::npos;
        return count;
    };
    const Handle cache = open_handle(host.url());
    CHECK(mapped() == 1);
    segment_writer_set_owner(&first->writer(), NEARKEY_SEGMENT_OWNER_DIED);
    host.set_memory(second);
    first.reset();
    while (nearkey_refresh(cache.get()) == 0)
        std::this_thread::yield();
    CHECK(mapped() == 1);
}

TEST_CASE("client: many threads read with one handle while the segment is replaced") {
    std::vector<std::unique_ptr<SegmentMemory>> memories;
    for (int i = 0; i < 3; ++i) {
        memories.push_back(std::make_unique<SegmentMemory>(SegmentMemory::Options{}));
        memories.back()->put("k", std::string(100, static_cast<char>('a' + i)));
    }
    SegmentHost host(*memories[0]);
    const Handle cache = open_handle(host.url());
    std::atomic<bool> is_over{false};
    std::atomic<uint64_t> hits{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            while (!is_over) {
                const Got got = get(cache, "k");
                if (got.result == NEARKEY_OFF) nearkey_refresh(cache.get());
                if (got.result < 0) continue;
                ++hits;
                wrong += got.value != std::string(100, got.value[0]) ? 1 : 0;
            }
        });
    }
    for (size_t i = 1; i < memories.size(); ++i) {
        host.set_memory(*memories[i]);
        segment_writer_set_over(&memories[i - 1]->writer());
        const int asked = host.asked();
        while (host.asked() == asked)
            std::this_thread::yield();
        const uint64_t before = hits;
        while (hits < before + 1000)
            std::this_thread::yield();
    }
    is_over = true;
    for (std::thread& thread : threads)
        thread.join();
    CHECK(wrong == 0);
    CHECK(info_of(cache).hits == hits);
}

}  // namespace nearkey::client
