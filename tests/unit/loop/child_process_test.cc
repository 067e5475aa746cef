// A child that we start is told of, and never stays behind.
#include "nearkey/loop/child_process.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <memory>

namespace nearkey::child_process_test {
namespace {

struct Ended {
    int count = 0;
    int status = -1;
    int signal = -1;

    ChildProcess::OnExit noted() {
        return [this](int seen_status, int seen_signal) {
            ++count;
            status = seen_status;
            signal = seen_signal;
        };
    }
};

ChildCommand shell(const std::string& script) {
    return {{"/bin/sh", "-c", script}};
}

bool is_gone(pid_t pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("child process: its exit status is told, once") {
    Loop loop;
    Ended ended;
    const ChildProcess child(loop, shell("exit 7"), ended.noted());
    CHECK(child.is_running());
    CHECK(child.pid() > 0);
    REQUIRE(run_until(loop, [&] { return ended.count > 0; }));
    CHECK(ended.status == 7);
    CHECK(ended.signal == 0);
    CHECK_FALSE(child.is_running());
    CHECK(child.pid() == 0);
}

TEST_CASE("child process: the signal that ended it is told") {
    Loop loop;
    Ended ended;
    ChildProcess child(loop, shell("exec sleep 60"), ended.noted());
    child.kill(SIGKILL);
    REQUIRE(run_until(loop, [&] { return ended.count > 0; }));
    CHECK(ended.signal == SIGKILL);
    child.kill(SIGKILL);  // It is over: nobody else gets the signal.
}

TEST_CASE("child process: a program that is not there is a failure, not an exit") {
    Loop loop;
    Ended ended;
    const ChildProcess child(loop, {{"nearkey-no-such-program"}}, ended.noted());
    CHECK_FALSE(child.is_running());
    CHECK_FALSE(child.failure().empty());
    CHECK(ended.count == 0);
}

TEST_CASE("child process: it may be destroyed by its own on_exit") {
    Loop loop;
    std::unique_ptr<ChildProcess> child;
    child = std::make_unique<ChildProcess>(loop, shell("exit 0"), [&](int, int) { child.reset(); });
    CHECK(run_until(loop, [&] { return child == nullptr; }));
}

TEST_CASE("child process: destroying it ends it politely, and on_exit does not come") {
    const TemporaryDirectory directory;
    Loop loop;
    Ended ended;
    const std::string ready = directory / "ready";
    const std::string mark = directory / "mark";
    const std::string script = "trap 'echo bye > " + mark + "; exit 0' TERM; : > " + ready +
                               "; while :; do sleep 0.01; done";
    auto child = std::make_unique<ChildProcess>(loop, shell(script), ended.noted());
    const pid_t pid = child->pid();
    REQUIRE(run_until(loop, [&] { return access(ready.c_str(), F_OK) == 0; }));
    child.reset();
    CHECK(text_of(mark) == "bye\n");
    CHECK(is_gone(pid));
    CHECK(ended.count == 0);
}

TEST_CASE("child process: one that does not listen to SIGTERM is killed after a second") {
    const TemporaryDirectory directory;
    Loop loop;
    Ended ended;
    const std::string ready = directory / "ready";
    auto child = std::make_unique<ChildProcess>(
        loop, shell("trap '' TERM; : > " + ready + "; exec sleep 60"), ended.noted());
    const pid_t pid = child->pid();
    REQUIRE(run_until(loop, [&] { return access(ready.c_str(), F_OK) == 0; }));
    const auto begin = std::chrono::steady_clock::now();
    child.reset();
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(is_gone(pid));
    CHECK(took >= std::chrono::milliseconds(1000));
    CHECK(took < std::chrono::milliseconds(1900));
}

TEST_CASE("child process: it has none of our descriptors, and a session of its own") {
    const TemporaryDirectory directory;
    const std::string list = directory / "list";
    const std::string secret = directory / "secret";
    // Without O_CLOEXEC, as our parent may have left it to us.
    const int inherited = open(secret.c_str(), O_CREAT | O_RDWR, 0600);
    REQUIRE(inherited >= 0);
    Loop loop;
    Ended ended;
    const ChildProcess child(
        loop, shell("ls -l /proc/$$/fd > " + list + "; cut -d' ' -f6 /proc/$$/stat >> " + list),
        ended.noted());
    const std::string session = "\n" + std::to_string(child.pid()) + "\n";
    REQUIRE(run_until(loop, [&] { return ended.count > 0; }));
    close(inherited);
    const std::string text = text_of(list);
    INFO(text);
    CHECK(text.find("0 -> /dev/null") != std::string::npos);
    CHECK(text.find("2 -> /dev/null") != std::string::npos);
    CHECK(text.find(secret) == std::string::npos);
    CHECK(text.ends_with(session));
}

TEST_CASE("child process: the program runs under the pid that we know, with its arguments") {
    const TemporaryDirectory directory;
    const std::string mark = directory / "mark";
    Loop loop;
    Ended ended;
    const ChildCommand command{
        {"/bin/sh", "-c", "echo $$ \"$1\" > " + mark + "; exit 5", "sh", "a b"}};
    const ChildProcess child(loop, command, ended.noted());
    const std::string expected = std::to_string(child.pid()) + " a b\n";
    REQUIRE(run_until(loop, [&] { return ended.count > 0; }));
    CHECK(ended.status == 5);
    CHECK(text_of(mark) == expected);
}

TEST_CASE("child process: the kernel kills it when we are killed") {
    const TemporaryDirectory directory;
    const std::string list = directory / "pid";
    // A process in our place, which is killed while its child runs.
    const pid_t in_our_place = fork();
    if (in_our_place == 0) {
        Loop loop;
        const ChildProcess child(loop, shell("echo $$ > " + list + "; exec sleep 60"),
                                 [](int, int) {});
        while (true)
            pause();
    }
    Loop loop;
    REQUIRE(run_until(loop, [&] { return text_of(list).ends_with('\n'); }));
    const pid_t child = std::stoi(text_of(list));
    CHECK_FALSE(is_gone(child));
    kill(in_our_place, SIGKILL);
    waitpid(in_our_place, nullptr, 0);
    const auto is_dead = [child] {
        std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
        const std::string text{std::istreambuf_iterator<char>(stat), {}};
        return is_gone(child) || text.find(") Z ") != std::string::npos;
    };
    CHECK(run_until(loop, is_dead));
}

}  // namespace
}  // namespace nearkey::child_process_test
