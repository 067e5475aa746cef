// HiredisSocket over a simulated link, in place of src/upstream/hiredis_adapter.cc: a link seam.
#include "nearkey/upstream/hiredis_adapter.h"

#include "nearkey/base/check.h"
#include "network.h"

#include <functional>
#include <utility>

struct redisAsyncContext final : nearkey::simulation::Endpoint {
    void on_connected() override { connected(); }
    void on_bytes(std::string_view bytes) override { received(bytes); }
    void on_lost(const std::string& reason) override { lost(reason); }

    uint64_t link = 0;
    std::function<void()> connected;
    std::function<void(std::string_view)> received;
    std::function<void(const std::string&)> lost;
};

namespace nearkey {

using simulation::Network;

HiredisSocket::HiredisSocket(Loop& loop, std::span<char> scratch, Metrics& metrics,
                             SocketEvents& events)
    : Deferred(loop, Phase::Upstream),
      loop_(loop),
      scratch_(scratch),
      metrics_(metrics),
      events_(events) {
}

HiredisSocket::~HiredisSocket() {
    metrics_.upstream_unsent_bytes -= counted_unsent_;
    if (context_ == nullptr) return;
    Network::current().close(context_->link);
    delete context_;
}

std::string HiredisSocket::connect(const SocketOptions& options) {
    context_ = new redisAsyncContext;
    context_->connected = [this] { finish_connecting(); };
    context_->received = [this](std::string_view bytes) {
        if (!lost_ && !events_.on_bytes(bytes)) pause_reading();
    };
    context_->lost = [this](const std::string& reason) { lose(reason); };
    const std::string& name = options.url.is_tcp() ? options.address : options.url.path;
    context_->link = Network::current().connect(*context_, name, &metrics_);
    return "";
}

void HiredisSocket::finish_connecting() {
    if (lost_) return;
    connected_ = true;
    events_.on_connected();
}

void HiredisSocket::send(std::string_view bytes) {
    NEARKEY_CHECK(context_ != nullptr && connected_);
    output_.append(bytes);
    count_unsent();
    defer();
}

void HiredisSocket::send_owned(Buffer bytes) {
    send(bytes.view());
}

void HiredisSocket::count_unsent() {
    metrics_.upstream_unsent_bytes -= counted_unsent_;
    counted_unsent_ = unsent();
    metrics_.upstream_unsent_bytes += counted_unsent_;
}

size_t HiredisSocket::unsent() const {
    return output_.size();
}

// There is no hiredis here.
void HiredisSocket::shrink() {
}

void HiredisSocket::finish_sending() {
    is_finishing_ = true;
    defer();
}

void HiredisSocket::pause_reading() {
    if (lost_ || std::exchange(is_paused_, true)) return;
    Network::current().pause(context_->link, true);
}

void HiredisSocket::resume_reading() {
    if (lost_ || !std::exchange(is_paused_, false)) return;
    Network::current().pause(context_->link, false);
}

void HiredisSocket::abandon() {
    lost_ = true;
}

void SocketReaper::take(std::unique_ptr<HiredisSocket> socket) {
    if (socket == nullptr) return;
    socket->abandon();
    ended_.push_back(std::move(socket));
    defer();
}

void HiredisSocket::before_sleep() {
    if (!lost_) flush();
}

void HiredisSocket::flush() {
    Network::current().send(context_->link, output_.view());
    output_.consume(output_.size());
    count_unsent();
    if (std::exchange(is_finishing_, false)) Network::current().finish(context_->link);
}

void HiredisSocket::lose(std::string reason) {
    if (std::exchange(lost_, true)) return;
    events_.on_socket_lost(reason);
}

// Nobody speaks TLS here.
void TlsContext::Free::operator()(ssl_ctx_st*) const {
}
TlsContext::TlsContext(const UpstreamOptions&, const std::string&) {
    NEARKEY_CHECK(false);
}

}  // namespace nearkey
