#include "nearkey/server/admin_server.h"

#include <microhttpd.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

// Each bounds the memory that a caller can make us hold; a page of 4 KiB needs no more.
constexpr unsigned kConnectionsMax = 32;
// With more than this, the one that has been there for longest without a request is closed.
constexpr unsigned kConnectionsEasy = 24;
// In one turn of the loop.
constexpr int kRoundsMax = 32;
constexpr unsigned kTimeoutSeconds = 1;  // without a byte
// For a whole request, after which the connection ends however its bytes drip in.
constexpr uint64_t kRequestMs = 3000;
constexpr uint64_t kDeadlineCheckMs = 500;
// For the headers of a request and of its answer, together.
constexpr size_t kConnectionMemoryMax = size_t{16} << 10;
constexpr size_t kNetworkMemoryMax = size_t{8} << 10;

// Headers of every answer: it is of this moment, of this type, and for no page of another origin.
constexpr std::pair<const char*, const char*> kHeaders[] = {
    {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
    {"X-Content-Type-Options", "nosniff"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"X-Frame-Options", "DENY"},
};

std::vector<AdminRequest::Named> values_of(MHD_Connection* connection, MHD_ValueKind kind) {
    std::vector<AdminRequest::Named> all;
    const MHD_KeyValueIteratorN keep = [](void* to, MHD_ValueKind, const char* name, size_t length,
                                          const char* value, size_t value_length) {
        static_cast<std::vector<AdminRequest::Named>*>(to)->emplace_back(
            std::string_view(name, length),
            value == nullptr ? std::string_view() : std::string_view(value, value_length));
        return MHD_YES;
    };
    MHD_get_connection_values_n(connection, kind, keep, &all);
    return all;
}

unsigned connections(MHD_Daemon* http) {
    return MHD_get_daemon_info(http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

}  // namespace

void AdminServer::StopHttp::operator()(MHD_Daemon* http) const {
    // Without this it would shut the socket down, on which others may accept as well.
    const int fd = MHD_quiesce_daemon(http);
    MHD_stop_daemon(http);
    if (fd >= 0) close(fd);
}

AdminServer::AdminServer(Loop& loop, Log& log, std::unique_ptr<ListenSocket> socket,
                         AdminSource& source, AdminReach reach)
    : source_(source),
      reach_(reach),
      loop_(loop),
      log_(log),
      listen_(std::move(socket)),
      deadline_timer_(loop, [this] { end_slow_requests(); }),
      timer_(loop, [this] { serve(); }) {
    listen_->claim();
    start_http();
    log_.info(reach_ == AdminReach::Host ? "admin_listening" : "metrics_listening",
              {{"address", std::string_view(listen_->address())}});
}

// The watch and the timer go first (last member first): then libmicrohttpd may close what it has.
AdminServer::~AdminServer() = default;

void AdminServer::leave() {
    stop_http();
    listen_->leave();
}

bool AdminServer::mend_socket(Metrics& metrics) {
    const int before = mender_.mend(*listen_, log_, metrics);
    if (before < 0) return mender_.is_lost();
    stop_http();
    close(before);
    start_http();
    return false;
}

void AdminServer::stop_http() {
    watch_.reset();
    timer_.stop();
    deadline_timer_.stop();
    http_.reset();
}

void AdminServer::start_http() {
    const MHD_AccessHandlerCallback on_request_callback =
        [](void* self, MHD_Connection* connection, const char* path, const char* method,
           const char* /*version*/, const char* /*upload*/, size_t* /*upload_size*/,
           void** seen) -> MHD_Result {
        auto* const server = static_cast<AdminServer*>(self);
        const AdminRequest request{method, path, values_of(connection, MHD_GET_ARGUMENT_KIND),
                                   values_of(connection, MHD_HEADER_KIND)};
        // The first call comes before the body, which is not waited for: the answer says so and the
        // connection ends with it. Where there is none, only an answer at the second call keeps it.
        if (*seen == nullptr && !request.has_body()) {
            *seen = server;
            return MHD_YES;
        }
        return static_cast<MHD_Result>(server->answer(connection, request));
    };
    const MHD_NotifyConnectionCallback on_connection_callback =
        [](void* self, MHD_Connection* connection, void** /*context*/,
           MHD_ConnectionNotificationCode what) {
            auto* const server = static_cast<AdminServer*>(self);
            if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
                server->awaited_.erase(connection);
                return;
            }
            server->await_request(connection);
            if (!server->deadline_timer_.is_active()) {
                server->deadline_timer_.start_repeating(kDeadlineCheckMs);
            }
        };
    // A copy: libmicrohttpd closes the descriptor that it listens on.
    const int fd = fcntl(listen_->fd(), F_DUPFD_CLOEXEC, 0);
    if (fd >= 0) {
        http_.reset(MHD_start_daemon(
            MHD_USE_EPOLL, 0, nullptr, nullptr, on_request_callback, this, MHD_OPTION_LISTEN_SOCKET,
            fd, MHD_OPTION_CONNECTION_LIMIT, kConnectionsMax, MHD_OPTION_CONNECTION_TIMEOUT,
            kTimeoutSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            reach_ == AdminReach::Host ? kConnectionMemoryMax : kNetworkMemoryMax,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection_callback, this, MHD_OPTION_END));
    }
    if (http_ == nullptr) {
        throw std::runtime_error("cannot serve HTTP on " + listen_->address() +
                                 ": libmicrohttpd does not start");
    }
    const MHD_DaemonInfo* const info = MHD_get_daemon_info(http_.get(), MHD_DAEMON_INFO_EPOLL_FD);
    watch_ = std::make_unique<FdWatch>(loop_, info->epoll_fd, [this](FdEvents) { serve(); });
    watch_->want({true, false});
}

// Runs libmicrohttpd, then asks it when it wants to be called without an event.
void AdminServer::serve() {
    const unsigned before = connections(http_.get());
    MHD_run(http_.get());
    // With all places taken it stops listening, and begins again only in the run after the one that
    // made a place free. Neither an event nor a timeout would bring that run.
    if (connections(http_.get()) < before) MHD_run(http_.get());
    for (int round = 0; round < kRoundsMax && make_places(); ++round) {
        MHD_run(http_.get());
        MHD_run(http_.get());
    }
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    if (MHD_get_timeout(http_.get(), &timeout_ms) == MHD_YES) {
        timer_.start_once(timeout_ms);
    } else {
        timer_.stop();
    }
}

// Callers that hold connections without asking must not keep a probe waiting: if there are many,
// those that have asked nothing for longest end. False: there were not too many.
bool AdminServer::make_places() {
    const unsigned count = connections(http_.get());
    if (count <= kConnectionsEasy) return false;
    std::vector<std::pair<uint64_t, MHD_Connection*>> oldest;
    for (const auto& [connection, awaited] : awaited_)
        oldest.emplace_back(awaited.number, connection);
    std::sort(oldest.begin(), oldest.end());
    oldest.resize(std::min<size_t>(oldest.size(), count - kConnectionsEasy));
    for (const auto& [number, connection] : oldest)
        end(connection);
    return true;
}

void AdminServer::await_request(MHD_Connection* connection) {
    awaited_[connection] = {loop_.now_ms() + kRequestMs, ++requests_awaited_};
}

// libmicrohttpd sees the end, and closes the connection.
void AdminServer::end(MHD_Connection* connection) {
    const MHD_ConnectionInfo* const info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    shutdown(info->connect_fd, SHUT_RDWR);
}

void AdminServer::end_slow_requests() {
    const uint64_t now = loop_.now_ms();
    for (const auto& [connection, awaited] : awaited_) {
        if (now >= awaited.deadline_ms) end(connection);
    }
    if (awaited_.empty()) deadline_timer_.stop();
}

int AdminServer::answer(MHD_Connection* connection, const AdminRequest& request) {
    await_request(connection);
    const bool is_network = reach_ == AdminReach::Network;
    const AdminTransport transport = is_network           ? AdminTransport::Network
                                     : listen_->is_unix() ? AdminTransport::Unix
                                                          : AdminTransport::Tcp;
    const AdminAnswer answer =
        answer_admin(is_network ? network_routes() : admin_routes(), source_, request, transport);
    MHD_Response* const response = MHD_create_response_from_buffer(
        answer.body.size(), const_cast<char*>(answer.body.data()), MHD_RESPMEM_MUST_COPY);
    if (response == nullptr) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer.content_type.c_str());
    for (const auto& [name, value] : kHeaders)
        MHD_add_response_header(response, name, value);
    for (const auto& [name, value] : answer.headers)
        MHD_add_response_header(response, name.c_str(), value.c_str());
    const int result = MHD_queue_response(connection, answer.status, response);
    MHD_destroy_response(response);
    return result;
}

}  // namespace nearkey
