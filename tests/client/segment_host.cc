#include "segment_host.h"

#include "nearkey/cache/segment.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <system_error>

namespace nearkey::client {

namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void send_answer(int client, const SegmentHost::Answer& answer) {
    std::string text = answer.text;
    iovec part{text.data(), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (answer.descriptor >= 0) {
        const size_t size = static_cast<size_t>(answer.copies) * sizeof(int);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(size);
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(size);
        for (int i = 0; i < answer.copies; ++i) {
            std::memcpy(CMSG_DATA(rights) + static_cast<size_t>(i) * sizeof(int),
                        &answer.descriptor, sizeof(int));
        }
    }
    (void)sendmsg(client, &message, MSG_NOSIGNAL);
}

}  // namespace

uint64_t now_ms() {
    return now_ns() / 1'000'000;
}

SegmentMemory::SegmentMemory(const Options& options) {
    const uint64_t size = segment_writer_size(options.buckets, options.item_bytes);
    descriptor_ = memfd_create("nearkey", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor_ < 0 || ftruncate(descriptor_, static_cast<off_t>(size)) != 0) fail("memfd");
    const int seals = options.seals < 0 ? F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL : options.seals;
    if (fcntl(descriptor_, F_ADD_SEALS, seals) != 0) fail("F_ADD_SEALS");
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
    if (base == MAP_FAILED) fail("mmap");
    segment_writer_init(&writer_, base, size, options.buckets);
    segment_writer_set_source(&writer_, 0, now_ms());
    segment_writer_set_staleness(&writer_, 3'600'000);
    read_only_ =
        open(("/proc/self/fd/" + std::to_string(descriptor_)).c_str(), O_RDONLY | O_CLOEXEC);
    if (read_only_ < 0) fail("open");
    fchmod(descriptor_, 0);
}

SegmentMemory::~SegmentMemory() {
    munmap(writer_.base, writer_.size);
    close(descriptor_);
    close(read_only_);
}

void SegmentMemory::put(const std::string& key, const std::string& value) {
    const segment_reply reply =
        segment_reply_of(key.data(), key.size(), value.data(), value.size());
    if (segment_writer_put(&writer_, &reply) != 0) fail("segment_writer_put");
}

void SegmentMemory::remove(const std::string& key) {
    segment_writer_remove(&writer_, key.data(), key.size(), 0);
}

SegmentHost::SegmentHost(SegmentMemory& memory) : memory_(&memory) {
    char folder[] = "/tmp/nearkey-client-XXXXXX";
    if (mkdtemp(folder) == nullptr || pipe(stop_) != 0) fail("mkdtemp");
    folder_ = folder;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path().c_str(), sizeof address.sun_path - 1);
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        fail("bind");
    }
    if (listen(listener_, 16) != 0) fail("listen");
    thread_ = std::thread([this] { serve(); });
}

SegmentHost::~SegmentHost() {
    (void)!write(stop_[1], "x", 1);
    thread_.join();
    for (const int descriptor : {listener_, stop_[0], stop_[1]})
        close(descriptor);
    unlink(path().c_str());
    rmdir(folder_.c_str());
}

SegmentHost::Answer SegmentHost::right_answer() const {
    char text[100];
    std::snprintf(text, sizeof text, "+OK 1 %016llx %llu 0\r\n", 0x1020304050607080ULL,
                  static_cast<unsigned long long>(now_ns()));
    return {text, memory_.load()->read_only()};
}

void SegmentHost::set_answer(std::function<Answer()> answer) {
    const std::lock_guard guard(lock_);
    answer_ = std::move(answer);
}

void SegmentHost::serve() {
    for (;;) {
        pollfd polled[2] = {{listener_, POLLIN, 0}, {stop_[0], POLLIN, 0}};
        if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
        if (polled[1].revents != 0) return;
        if (polled[0].revents == 0) continue;
        const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (client < 0) continue;
        answer_one(client);
        close(client);
    }
}

void SegmentHost::answer_one(int client) {
    char request[64];
    if (recv(client, request, sizeof request, 0) <= 0) return;
    ++asked_;
    std::unique_lock guard(lock_);
    const Answer answer = answer_ ? answer_() : right_answer();
    guard.unlock();
    if (answer.text.empty()) return;
    send_answer(client, answer);
    // The client closes first, or never says anything: then it waits in vain, as long as it wants.
    pollfd polled[2] = {{client, POLLIN, 0}, {stop_[0], POLLIN, 0}};
    (void)poll(polled, 2, -1);
}

}  // namespace nearkey::client
