// A server of our own making for what asks a nearkey: it says one thing, to one who asks.
// Its thread ends when it has said it, or when nobody came for ten seconds.
#pragma once

#include "nearkey/loop/listen_socket.h"

#include "../run_until.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <string>
#include <thread>

namespace nearkey {

enum class Ending { Close, StayOpen };

// Takes one connection, sends what it was told, and remembers what it was asked.
class OneAnswer {
public:
    OneAnswer(const std::string& address, std::string answer, Ending ending)
        : listen_(address, 4, {0600}), thread_([this, answer, ending] { serve(answer, ending); }) {}
    ~OneAnswer() { thread_.join(); }

    const std::string& address() const { return listen_.address(); }
    const std::string& request() const { return request_; }

private:
    void serve(const std::string& answer, Ending ending) {
        pollfd waiting{listen_.fd(), POLLIN, 0};
        if (poll(&waiting, 1, 10'000) != 1) return;
        const int fd = accept4(listen_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
        char bytes[1024];
        const ssize_t count = recv(fd, bytes, sizeof bytes, 0);
        if (count > 0) request_.assign(bytes, static_cast<size_t>(count));
        send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        // Until the probe gives up, which shows as the end of its side.
        if (ending == Ending::StayOpen) static_cast<void>(recv(fd, bytes, sizeof bytes, 0));
        close(fd);
    }

    ListenSocket listen_;
    std::string request_;
    std::thread thread_;
};

}  // namespace nearkey
