// What is deferred runs once a turn, phase by phase, whatever is destroyed meanwhile.
#include "nearkey/loop/loop.h"

#include "../run_until.h"
#include "nearkey/loop/fd_watch.h"

#include <doctest/doctest.h>

#include <sys/eventfd.h>
#include <unistd.h>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nearkey::loop_test {
namespace {

class Noted final : public Deferred {
public:
    Noted(Loop& loop, Phase phase, std::function<void()> action)
        : Deferred(loop, phase), action_(std::move(action)) {}

private:
    void before_sleep() override { action_(); }
    std::function<void()> action_;
};

// Exactly one turn.
void turn(Loop& loop) {
    Timer awake(loop, [] {});
    awake.start_once(3'600'000);
    Noted last(loop, Phase::Reap, [&] { loop.stop(); });
    last.defer();
    loop.run();
}

TEST_CASE("deferred: phases run in their order, within a phase in the order of asking") {
    Loop loop;
    std::string order;
    Noted reap(loop, Phase::Reap, [&] { order += "r"; });
    Noted client(loop, Phase::Client, [&] { order += "c"; });
    Noted upstream(loop, Phase::Upstream, [&] { order += "u"; });
    Noted second(loop, Phase::Resume, [&] { order += "2"; });
    Noted first(loop, Phase::Resume, [&] { order += "1"; });
    for (Noted* deferred : {&reap, &client, &upstream, &first, &second})
        deferred->defer();
    CHECK(order.empty());
    turn(loop);
    CHECK(order == "12ucr");
}

TEST_CASE("deferred: asking twice in a turn is asking once, and it is not asked again by itself") {
    Loop loop;
    int runs = 0;
    Noted noted(loop, Phase::Client, [&] { ++runs; });
    noted.defer();
    noted.defer();
    turn(loop);
    CHECK(runs == 1);
    turn(loop);
    CHECK(runs == 1);
    noted.defer();
    turn(loop);
    CHECK(runs == 2);
}

TEST_CASE("deferred: a later phase asked for by an earlier one still runs in this turn") {
    Loop loop;
    std::string order;
    Noted reap(loop, Phase::Reap, [&] { order += "r"; });
    Noted client(loop, Phase::Client, [&] {
        order += "c";
        reap.defer();
    });
    Noted resume(loop, Phase::Resume, [&] {
        order += "1";
        client.defer();
    });
    resume.defer();
    turn(loop);
    CHECK(order == "1cr");
}

TEST_CASE(
    "deferred: its own or an earlier phase has to wait for the next turn, which comes at once") {
    Loop loop;
    std::vector<std::string> turns(1);
    int left = 3;
    std::unique_ptr<Noted> again;
    Noted resume(loop, Phase::Resume, [&] { turns.back() += "1"; });
    Noted reap(loop, Phase::Reap, [&] {
        turns.emplace_back();
        if (left == 0) loop.stop();
    });
    again = std::make_unique<Noted>(loop, Phase::Client, [&] {
        turns.back() += "c";
        if (left-- > 0) again->defer();
        resume.defer();
        reap.defer();
    });
    // Keeps the loop alive; an hour would pass if it slept.
    Timer hour(loop, [] { FAIL("the loop slept on deferred work"); });
    hour.start_once(3'600'000);
    again->defer();
    loop.run();
    REQUIRE(turns.size() >= 4);
    CHECK(turns[0] == "c");
    CHECK(turns[1] == "1c");
    CHECK(turns[2] == "1c");
}

TEST_CASE("deferred: destroyed while listed, it is not run, and the others are") {
    Loop loop;
    std::string order;
    Noted first(loop, Phase::Client, [&] { order += "1"; });
    auto second = std::make_unique<Noted>(loop, Phase::Client, [&] { order += "2"; });
    Noted third(loop, Phase::Client, [&] { order += "3"; });
    first.defer();
    second->defer();
    third.defer();
    second.reset();
    turn(loop);
    CHECK(order == "13");
}

TEST_CASE("deferred: destroyed by one that runs before it in its phase, it is not run") {
    Loop loop;
    std::string order;
    std::unique_ptr<Noted> victim;
    Noted first(loop, Phase::Client, [&] {
        order += "1";
        victim.reset();
    });
    victim = std::make_unique<Noted>(loop, Phase::Client, [&] { order += "2"; });
    Noted third(loop, Phase::Client, [&] { order += "3"; });
    first.defer();
    victim->defer();
    third.defer();
    turn(loop);
    CHECK(order == "13");
}

TEST_CASE("deferred: destroyed while it is run, even after it has asked again, it is gone") {
    for (const bool asks_again : {false, true}) {
        CAPTURE(asks_again);
        Loop loop;
        int runs = 0;
        std::unique_ptr<Noted> self;
        Noted other(loop, Phase::Client, [&] { ++runs; });
        self = std::make_unique<Noted>(loop, Phase::Client, [&] {
            ++runs;
            if (asks_again) self->defer();
            const std::unique_ptr<Noted> ending = std::move(self);
        });
        self->defer();
        other.defer();
        turn(loop);
        turn(loop);
        CHECK(runs == 2);
    }
}

TEST_CASE("deferred: one that takes the place of a destroyed one is not mistaken for it") {
    Loop loop;
    int runs = 0;
    auto old = std::make_unique<Noted>(loop, Phase::Reap, [] {});
    Noted young(loop, Phase::Reap, [&] { ++runs; });
    Noted first(loop, Phase::Reap, [&] {
        young.defer();  // at position 0 of the next turn, where `first` stood in this one
        old.reset();
    });
    first.defer();
    old->defer();
    turn(loop);
    turn(loop);
    CHECK(runs == 1);
}

TEST_CASE("timer: once is once, repeating repeats, stopped is silent") {
    Loop loop;
    int once = 0;
    int repeated = 0;
    Timer first(loop, [&] { ++once; });
    Timer second(loop, [&] { ++repeated; });
    Timer third(loop, [] { FAIL("it was stopped"); });
    first.start_once(0);
    second.start_repeating(1);
    third.start_once(0);
    CHECK(third.is_active());
    third.stop();
    CHECK_FALSE(third.is_active());
    REQUIRE(run_until(loop, [&] { return repeated >= 3; }));
    CHECK(once == 1);
    CHECK_FALSE(first.is_active());
    CHECK(second.is_active());
}

TEST_CASE("timer: it may restart or destroy itself in its own callback") {
    Loop loop;
    int runs = 0;
    std::unique_ptr<Timer> timer;
    timer = std::make_unique<Timer>(loop, [&] {
        if (++runs < 3) {
            timer->start_once(0);
        } else {
            timer.reset();
        }
    });
    timer->start_once(0);
    REQUIRE(run_until(loop, [&] { return timer == nullptr; }));
    CHECK(runs == 3);
}

TEST_CASE("signal watch: the signal is told on the loop, and no more once it is destroyed") {
    Loop loop;
    int seen = 0;
    auto watch = std::make_unique<SignalWatch>(loop, SIGUSR2, [&] { ++seen; });
    const SignalWatch other(loop, SIGUSR2, [] {});
    raise(SIGUSR2);
    CHECK(seen == 0);
    REQUIRE(run_until(loop, [&] { return seen == 1; }));
    watch.reset();
    raise(SIGUSR2);
    turn(loop);
    CHECK(seen == 1);
}

// A descriptor that has something to do.
class Ready {
public:
    explicit Ready(Loop& loop)
        : fd_(eventfd(1, EFD_NONBLOCK)), watch_(loop, fd_, [this](FdEvents) {
              uint64_t taken = 0;
              is_seen = read(fd_, &taken, sizeof taken) == sizeof taken;
          }) {
        watch_.want({true, false});
    }
    ~Ready() {
        watch_.want({});
        close(fd_);
    }
    bool is_seen = false;

private:
    int fd_;
    FdWatch watch_;
};

TEST_CASE("loop: a large value moves in small pieces while others are served, and a while after") {
    Loop loop;
    CHECK(loop.large_piece() == Loop::kWholePiece);
    {
        Ready from(loop);
        Ready to(loop);
        REQUIRE(run_until(loop, [&] { return from.is_seen && to.is_seen; }));
        turn(loop);
        CHECK(loop.large_piece() == Loop::kWholePiece);
    }
    Ready from(loop);
    Ready to(loop);
    Ready other(loop);
    REQUIRE(run_until(loop, [&] { return from.is_seen && to.is_seen && other.is_seen; }));
    int turns = 0;
    while (loop.large_piece() == Loop::kSharedPiece && turns < 1000) {
        turn(loop);
        ++turns;
    }
    CHECK(turns >= 60);
    CHECK(turns <= 70);
}

// ~Loop checks that uv_loop_close() finds nothing left; a failure would end the process.
TEST_CASE("loop: it ends cleanly right after active timers, signals and deferred work are gone") {
    Loop loop;
    Timer timer(loop, [] { FAIL("it is destroyed before it is due"); });
    timer.start_repeating(3'600'000);
    const SignalWatch watch(loop, SIGUSR2, [] {});
    Noted noted(loop, Phase::Reap, [] { FAIL("it is destroyed before the loop turns"); });
    noted.defer();
    CHECK(loop.now_ms() > 0);
}

}  // namespace
}  // namespace nearkey::loop_test
