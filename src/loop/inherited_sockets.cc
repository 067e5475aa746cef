#include "nearkey/loop/inherited_sockets.h"

#include "nearkey/base/parse_number.h"
#include "nearkey/loop/socket_name.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <optional>
#include <utility>

namespace nearkey {

namespace {

constexpr int kDescriptorsMax = 1024;

[[noreturn]] void refuse(int fd, const std::string& name, const std::string& why) {
    throw ListenError("descriptor " + std::to_string(fd) + " (" + (name.empty() ? "?" : name) +
                      ") of LISTEN_FDS: " + why);
}

int option_of(int fd, int option) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

bool is_of_this_host(const std::string& address) {
    return address.starts_with('/') || address.starts_with("127.0.0.1:") ||
           address.starts_with("[::1]:");
}

}  // namespace

InheritedSockets::InheritedSockets(const ListenVariables& variables) {
    // LISTEN_PID names another process: the variables were inherited by mistake. Ignore them.
    if (variables.fds.empty() || parse_number<int>(variables.pid) != getpid()) return;
    const std::optional<int> count = parse_number<int>(variables.fds);
    if (!count || *count < 0 || *count > kDescriptorsMax) {
        throw ListenError("LISTEN_FDS=" + variables.fds +
                          " is no number of descriptors; only systemd should set it");
    }
    std::vector<std::string> names;
    for (size_t begin = 0; begin <= variables.names.size() && !variables.names.empty();) {
        const size_t end = std::min(variables.names.find(':', begin), variables.names.size());
        names.push_back(variables.names.substr(begin, end - begin));
        begin = end + 1;
    }
    names.resize(static_cast<size_t>(*count));
    // The locks first: they tell who owns a socket's file.
    for (int i = 0; i < *count; ++i) {
        const int fd = variables.first_fd + i;
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) refuse(fd, names[i], "it is not open");
        if (names[i] == kLock) locks_.push_back(fd);
        if (names[i] == kChannel) channel_ = fd;
    }
    for (int i = 0; i < *count; ++i) {
        if (names[i] == kLock || names[i] == kChannel) continue;
        adopt(variables.first_fd + i, names[i]);
    }
}

InheritedSockets::~InheritedSockets() {
    entries_.clear();
    for (const int fd : locks_)
        close(fd);
    if (channel_ >= 0) close(channel_);
}

void InheritedSockets::adopt(int fd, const std::string& name) {
    if (option_of(fd, SO_TYPE) != SOCK_STREAM || option_of(fd, SO_ACCEPTCONN) != 1) {
        refuse(fd, name, "it is no listening stream socket (ListenStream= and Accept=no)");
    }
    const std::string address = local_name(fd);
    const bool may_be_any = name == kMetrics || name == kOwn;
    if (address.empty() || (!may_be_any && !is_of_this_host(address))) {
        refuse(fd, name, "allowed is an absolute path, 127.0.0.1:PORT or [::1]:PORT");
    }
    BoundSocket bound{fd, address, name == kOwn, nullptr};
    const std::string lock_path = address + ".lock";
    const auto lock = std::find_if(locks_.begin(), locks_.end(), [&](int candidate) {
        return address.starts_with('/') && is_same_file(candidate, lock_path);
    });
    if (lock != locks_.end()) {
        bound.lock = FileLock::adopt(*lock);
        locks_.erase(lock);
    }
    entries_.push_back({name, std::make_unique<ListenSocket>(std::move(bound))});
}

std::vector<std::string> InheritedSockets::foreign_addresses() const {
    std::vector<std::string> addresses;
    for (const Entry& entry : entries_) {
        if (entry.name != kAdmin && entry.name != kMetrics && entry.name != kOwn)
            addresses.push_back(entry.socket->address());
    }
    return addresses;
}

std::string InheritedSockets::address_of(std::string_view name) const {
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.name == name; });
    return found == entries_.end() ? "" : found->socket->address();
}

std::unique_ptr<ListenSocket> InheritedSockets::take(std::string_view address) {
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
        return entry.socket->address() == address;
    });
    if (found == entries_.end()) return nullptr;
    std::unique_ptr<ListenSocket> socket = std::move(found->socket);
    entries_.erase(found);
    return socket;
}

int InheritedSockets::take_channel() {
    return std::exchange(channel_, -1);
}

void InheritedSockets::drop_rest() {
    for (const Entry& entry : entries_)
        entry.socket->claim();
    entries_.clear();
}

}  // namespace nearkey
