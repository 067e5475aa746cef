// Names become addresses on the loop, later, or the answer is forgotten.
#include "nearkey/loop/resolver.h"

#include "../run_until.h"

#include <doctest/doctest.h>
#include <uv.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace nearkey::resolver_test {
namespace {

struct Answers {
    std::function<void(const Resolution::Answer&)> noted() {
        return [this](const Resolution::Answer& answer) { told.push_back(answer); };
    }
    std::vector<Resolution::Answer> told;
};

TEST_CASE("resolver: localhost is a loopback address, told later and once") {
    Loop loop;
    Answers answers;
    const Resolution resolution(loop, "localhost", answers.noted());
    CHECK(answers.told.empty());
    REQUIRE(run_until(loop, [&] { return !answers.told.empty(); }));
    REQUIRE_FALSE(answers.told[0].addresses.empty());
    const std::string& address = answers.told[0].addresses[0];
    CHECK((address == "127.0.0.1" || address == "::1"));
    CHECK(answers.told[0].error.empty());
    CHECK(answers.told.size() == 1);
}

TEST_CASE("resolver: a numeric address is its own answer") {
    Loop loop;
    Answers answers;
    const Resolution resolution(loop, "127.0.0.3", answers.noted());
    REQUIRE(run_until(loop, [&] { return !answers.told.empty(); }));
    REQUIRE(answers.told[0].addresses.size() == 1);
    CHECK(answers.told[0].addresses[0] == "127.0.0.3");
}

TEST_CASE("resolver: an address waits behind no lookup") {
    Loop loop;
    std::atomic<bool> is_over = false;
    std::vector<std::unique_ptr<uv_work_t>> busy(8);
    for (auto& work : busy) {
        work = std::make_unique<uv_work_t>();
        work->data = &is_over;
        // Each of libuv's threads has something that does not end.
        const auto wait = [](uv_work_t* one) {
            while (!*static_cast<std::atomic<bool>*>(one->data))
                std::this_thread::yield();
        };
        REQUIRE(uv_queue_work(loop.raw(), work.get(), wait, [](uv_work_t*, int) {}) == 0);
    }
    Answers answers;
    const Resolution one(loop, "127.0.0.3", answers.noted());
    const Resolution other(loop, "::1", answers.noted());
    const bool is_answered = run_until(loop, [&] { return answers.told.size() == 2; });
    is_over = true;
    REQUIRE(is_answered);
    CHECK(answers.told[0].addresses == std::vector<std::string>{"127.0.0.3"});
    CHECK(answers.told[1].addresses == std::vector<std::string>{"::1"});
    CHECK(loop.finish(10'000));
}

TEST_CASE("resolver: what is an address is told from a name") {
    for (const char* address : {"127.0.0.1", "::1", "fe80::1%lo"})
        CHECK(Resolution::is_address(address));
    for (const char* name : {"localhost", "a.example", "127.0.0.1.example", ""})
        CHECK_FALSE(Resolution::is_address(name));
}

TEST_CASE("resolver: a name that can't exist is an error") {
    Loop loop;
    Answers answers;
    const Resolution resolution(loop, "a..b", answers.noted());
    REQUIRE(run_until(loop, [&] { return !answers.told.empty(); }));
    CHECK(answers.told[0].addresses.empty());
    CHECK_FALSE(answers.told[0].error.empty());
}

TEST_CASE(
    "resolver: a name too long to be asked for is an error too, told later like every other") {
    Loop loop;
    Answers answers;
    const Resolution resolution(loop, std::string(300, 'x'), answers.noted());
    CHECK(answers.told.empty());
    REQUIRE(run_until(loop, [&] { return !answers.told.empty(); }));
    CHECK(answers.told[0].addresses.empty());
    CHECK_FALSE(answers.told[0].error.empty());
    CHECK(answers.told.size() == 1);
}

TEST_CASE("resolver: destroyed before the answer, it tells nothing") {
    Answers forgotten;
    Answers answers;
    Loop loop;
    auto first = std::make_unique<Resolution>(loop, "localhost", forgotten.noted());
    const Resolution second(loop, "localhost", answers.noted());
    first.reset();
    REQUIRE(run_until(loop, [&] { return !answers.told.empty(); }));
    CHECK(forgotten.told.empty());
    // One that is destroyed with its loop right behind it.
    std::make_unique<Resolution>(loop, "localhost", forgotten.noted()).reset();
}

TEST_CASE("resolver: it may be destroyed by its own answer") {
    Loop loop;
    std::unique_ptr<Resolution> resolution;
    resolution = std::make_unique<Resolution>(
        loop, "localhost", [&](const Resolution::Answer&) { resolution.reset(); });
    CHECK(run_until(loop, [&] { return resolution == nullptr; }));
}

}  // namespace
}  // namespace nearkey::resolver_test
