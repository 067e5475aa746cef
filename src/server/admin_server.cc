#include "nearkey/server/admin_server.h"

#include <microhttpd.h>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <stdexcept>

namespace nearkey {

struct AdminServer::Answer {
    unsigned status = MHD_HTTP_OK;
    const char* content_type = "application/json";
    std::string body;
};

namespace {

using Json = nlohmann::ordered_json;

// Each a bound on what a caller can make us hold; nobody needs more for a page of 4 KiB.
constexpr unsigned kConnectionsMax = 32;
constexpr unsigned kTimeoutSeconds = 1;
constexpr size_t kConnectionMemoryMax = size_t{16} << 10;
constexpr int kBacklog = 64;

constexpr const char* kAllowedMethods = "GET, HEAD";
constexpr const char* kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

// Bytes that are not UTF-8 are replaced: no exception may leave libmicrohttpd's callback.
std::string text_of(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string error_text(const char* what) {
    return text_of({{"error", what}});
}

std::string utc_before(double seconds) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const int64_t now_ms = int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
    const int64_t then_ms = now_ms - std::llround(seconds * 1000);
    const time_t then = static_cast<time_t>(then_ms / 1000);
    tm parts{};
    gmtime_r(&then, &parts);
    char date[32];
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    char text[48];
    std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(then_ms % 1000));
    return text;
}

std::string state_text(std::string_view state, std::string_view reason, double since_seconds) {
    return text_of({{"state", state},
                    {"reason", reason},
                    {"since", utc_before(since_seconds)},
                    {"since_seconds", std::round(since_seconds * 1000) / 1000}});
}

std::string stats_text(const Metrics& metrics) {
    Json object = Json::object();
    for (const MetricRow& row : metric_rows()) {
        object[std::string(row.name)] = metrics.*row.field;
    }
    return text_of(object);
}

// The text exposition format, version 0.0.4. Our help texts have nothing to escape.
std::string prometheus_text(const Metrics& metrics) {
    std::string text;
    for (const MetricRow& row : metric_rows()) {
        const std::string name(row.name);
        text.append("# HELP ").append(name).append(" ").append(row.help).append("\n# TYPE ");
        text.append(name).append(row.type == MetricType::Counter ? " counter\n" : " gauge\n");
        text.append(name).append(" ").append(std::to_string(metrics.*row.field)).append("\n");
    }
    return text;
}

// "127.0.0.1", "localhost" or "[::1]", with a port or without.
bool names_loopback(std::string_view host) {
    static constexpr std::array<std::string_view, 3> kNames = {"127.0.0.1", "localhost", "[::1]"};
    return std::any_of(kNames.begin(), kNames.end(), [&](std::string_view name) {
        if (!host.starts_with(name)) return false;
        std::string_view rest = host.substr(name.size());
        if (rest.empty()) return true;
        if (rest.front() != ':') return false;
        rest.remove_prefix(1);
        return std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
    });
}

unsigned connections(MHD_Daemon* http) {
    return MHD_get_daemon_info(http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

}  // namespace

void AdminServer::StopHttp::operator()(MHD_Daemon* http) const {
    MHD_stop_daemon(http);
}

AdminServer::AdminServer(Loop& loop, Log& log, const AdminAddress& address,
                         const AdminSource& source)
    : source_(source),
      started_ms_(loop.now_ms()),
      loop_(loop),
      listen_(address.address, kBacklog, address.mode),
      timer_(loop, [this] { serve(); }) {
    start_http();
    const MHD_DaemonInfo* const info = MHD_get_daemon_info(http_.get(), MHD_DAEMON_INFO_EPOLL_FD);
    watch_ = std::make_unique<FdWatch>(loop, info->epoll_fd, [this](FdEvents) { serve(); });
    watch_->want({true, false});
    log.info("admin_listening", {{"address", std::string_view(listen_.address())}});
}

// The watch and the timer go first (last member first): then libmicrohttpd may close what it has.
AdminServer::~AdminServer() = default;

void AdminServer::start_http() {
    const MHD_AccessHandlerCallback on_request_callback =
        [](void* self, MHD_Connection* connection, const char* path, const char* method,
           const char* /*version*/, const char* /*upload*/, size_t* /*upload_size*/,
           void** seen) -> MHD_Result {
        auto* const server = static_cast<AdminServer*>(self);
        // The first call comes before the body, if there is one. What gets an answer already then
        // loses its connection; of a GET or HEAD there is more to come, and it may stay.
        const std::string_view verb = method;
        if (*seen == nullptr && (verb == "GET" || verb == "HEAD")) {
            *seen = server;
            return MHD_YES;
        }
        return static_cast<MHD_Result>(server->on_request(connection, path, verb));
    };
    // A copy: libmicrohttpd closes the descriptor that it listens on.
    const int fd = fcntl(listen_.fd(), F_DUPFD_CLOEXEC, 0);
    if (fd >= 0) {
        http_.reset(MHD_start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, on_request_callback, this,
                                     MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                                     kConnectionsMax, MHD_OPTION_CONNECTION_TIMEOUT,
                                     kTimeoutSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                     kConnectionMemoryMax, MHD_OPTION_END));
    }
    if (http_ == nullptr) {
        throw std::runtime_error("cannot serve HTTP on " + listen_.address() +
                                 ": libmicrohttpd does not start");
    }
}

// Does what there is to do, then asks libmicrohttpd when it wants to be called without an event.
void AdminServer::serve() {
    const unsigned before = connections(http_.get());
    MHD_run(http_.get());
    // With all places taken it stops listening, and begins again only in the run after the one that
    // made a place free. Neither an event nor a timeout would bring that run.
    if (connections(http_.get()) < before) MHD_run(http_.get());
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    if (MHD_get_timeout(http_.get(), &timeout_ms) == MHD_YES) {
        timer_.start_once(timeout_ms);
    } else {
        timer_.stop();
    }
}

int AdminServer::on_request(MHD_Connection* connection, std::string_view path,
                            std::string_view method) {
    Answer page = answer(path);
    const bool is_allowed_method = method == "GET" || method == "HEAD";
    if (!is_allowed_method && page.status != MHD_HTTP_NOT_FOUND) {
        page = {MHD_HTTP_METHOD_NOT_ALLOWED, "application/json", error_text("GET or HEAD only")};
    }
    if (!listen_.is_unix()) {
        const char* const host =
            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
        if (host == nullptr || !names_loopback(host)) {
            page = {MHD_HTTP_FORBIDDEN, "application/json",
                    error_text("Host must be 127.0.0.1, localhost or [::1]")};
        }
    }
    MHD_Response* const response =
        MHD_create_response_from_buffer(page.body.size(), page.body.data(), MHD_RESPMEM_MUST_COPY);
    if (response == nullptr) return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page.content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (page.status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, kAllowedMethods);
    }
    const int result = MHD_queue_response(connection, page.status, response);
    MHD_destroy_response(response);
    return result;
}

AdminServer::Answer AdminServer::answer(std::string_view path) const {
    if (path == "/livez") {
        const double alive_seconds = static_cast<double>(loop_.now_ms() - started_ms_) / 1000;
        return {MHD_HTTP_OK, "application/json",
                state_text("live", "the event loop turns", alive_seconds)};
    }
    if (path == "/readyz") return readyz();
    if (path == "/stats") {
        return {MHD_HTTP_OK, "application/json", stats_text(source_.metrics())};
    }
    if (path == "/metrics") {
        return {MHD_HTTP_OK, kPrometheusType, prometheus_text(source_.metrics())};
    }
    return {MHD_HTTP_NOT_FOUND, "application/json",
            error_text("there are /livez, /readyz, /stats and /metrics")};
}

AdminServer::Answer AdminServer::readyz() const {
    const AdminState now = source_.admin_state();
    return {now.ready ? unsigned{MHD_HTTP_OK} : unsigned{MHD_HTTP_SERVICE_UNAVAILABLE},
            "application/json", state_text(now.state, now.reason, now.since_seconds)};
}

}  // namespace nearkey
