#include "nearkey/loop/resolver.h"

#include <netdb.h>
#include <uv.h>

#include <utility>

namespace nearkey {

namespace {

// Finds a numeric address without asking anybody. Null: it is a name.
addrinfo* find_numeric(const std::string& host) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST;
    addrinfo* found = nullptr;
    return getaddrinfo(host.c_str(), nullptr, &hints, &found) == 0 ? found : nullptr;
}

}  // namespace

struct Resolution::Pending {
    uv_getaddrinfo_t request{};
    std::function<void(const Answer&)> callback;
    Resolution* owner = nullptr;  // null: nobody waits any more
    addrinfo* numeric = nullptr;  // of a host that is an address
    ~Pending() { uv_freeaddrinfo(numeric); }

    static void on_resolved(uv_getaddrinfo_t* request, int status, addrinfo* found) {
        std::unique_ptr<Pending> self(static_cast<Pending*>(request->data));
        // Destroying the owner in the callback is fine: it has let go of us.
        Answer answer;
        if (status != 0) {
            answer.error = uv_strerror(status);
        } else {
            for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
                char text[NI_MAXHOST];
                const int named = getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text,
                                              nullptr, 0, NI_NUMERICHOST);
                if (named == 0) answer.addresses.emplace_back(text);
                if (named != 0) answer.error = gai_strerror(named);
            }
        }
        uv_freeaddrinfo(found);
        if (self->owner == nullptr) return;
        self->owner->pending_ = nullptr;
        self->callback(answer);
    }
};

Resolution::Resolution(Loop& loop, const std::string& host,
                       std::function<void(const Answer&)> callback)
    : pending_(new Pending) {
    pending_->callback = std::move(callback);
    pending_->owner = this;
    pending_->request.data = pending_;
    // An address is not to wait behind names that are looked up.
    pending_->numeric = find_numeric(host);
    if (pending_->numeric != nullptr) {
        late_answer_ = std::make_unique<Timer>(loop, [this] {
            Pending::on_resolved(&pending_->request, 0, std::exchange(pending_->numeric, nullptr));
        });
        late_answer_->start_once(0);
        return;
    }
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    // Loopback counts as no configured address for AI_ADDRCONFIG; "localhost" needs no such care.
    if (host == "localhost") hints.ai_flags = 0;
    const int status = uv_getaddrinfo(loop.raw(), &pending_->request, Pending::on_resolved,
                                      host.c_str(), nullptr, &hints);
    if (status == 0) return;
    // It can't even be asked for; the answer comes later, like every other failure.
    late_answer_ = std::make_unique<Timer>(
        loop, [this, status] { Pending::on_resolved(&pending_->request, status, nullptr); });
    late_answer_->start_once(0);
}

bool Resolution::is_address(const std::string& host) {
    addrinfo* const found = find_numeric(host);
    uv_freeaddrinfo(found);
    return found != nullptr;
}

Resolution::~Resolution() {
    if (pending_ == nullptr) return;
    if (late_answer_ != nullptr) {
        delete pending_;  // libuv does not know of it
        return;
    }
    pending_->owner = nullptr;
    uv_cancel(reinterpret_cast<uv_req_t*>(&pending_->request));
}

}  // namespace nearkey
