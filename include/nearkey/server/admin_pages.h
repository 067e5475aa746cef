// The pages of the admin server: one row each in admin_routes(), and the source of their contents.
// A page is a function from a request to an answer and knows no HTTP library; a new page is a
// function in a file of its own and a row. The one rule: GET only reads, POST changes something,
// and every answer has a bound that does not depend on how many clients there are.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/server/history.h"
#include "nearkey/server/metrics_text.h"
#include "nearkey/session/facts.h"
#include "nearkey/session/hot_keys.h"
#include "nearkey/session/slow_log.h"
#include "nearkey/upstream/facts.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

// A request for a page. Its texts live as long as the HTTP request. No page takes a body: all is in
// path, query and headers.
struct AdminRequest {
    using Named = std::pair<std::string_view, std::string_view>;

    std::string_view method;
    std::string_view path;          // without the query
    std::vector<Named> parameters;  // of the query, decoded, in order; without "=", an empty value
    std::vector<Named> headers;

    // The first one of that name. Names of headers are compared without case.
    std::optional<std::string_view> parameter(std::string_view name) const;
    std::optional<std::string_view> header(std::string_view name) const;
    // Reads a number up to `max`; `value` stays where there is no parameter. False: any other text.
    bool read_number(std::string_view name, uint64_t max, uint64_t& value) const;
    bool has_body() const;
};

struct AdminState {
    bool ready = false;
    std::string state;         // "ready", "degraded", "not ready" or "draining"
    std::string reason;        // one line
    double since_seconds = 0;  // how long it has been so
    ServerFacts server = {};
    std::string upstream = {};                  // the URL that is dialled, without secrets
    std::vector<SentinelFacts> sentinels = {};  // where the upstream has some
    std::optional<ClusterFacts> cluster = {};   // where it is one
};

// The outcome of a reload (SIGHUP, POST /reload) or an upgrade (SIGUSR2, POST /upgrade). Either is
// done as a whole or not at all.
struct AdminChange {
    enum class State { None, UnderWay, Done, Refused };

    State state = State::None;         // None: nobody has asked yet
    uint64_t number = 0;               // how many times somebody has asked
    std::string reason;                // of the refusal or the wait; one line, no secret
    std::vector<std::string> changes;  // of a reload: each "key: old -> new", secrets redacted
};

// The source of the pages' contents, which also carries out their orders.
class AdminSource {
public:
    virtual AdminState admin_state() const = 0;
    virtual double uptime_seconds() const = 0;
    virtual uint64_t now_ms() const = 0;
    virtual Metrics metrics() const = 0;
    // metrics_text(), perhaps some moments old: however often other hosts ask, it costs little.
    virtual std::string recent_metrics(MetricsFormat format) = 0;
    virtual const History& history() const = 0;
    // At most `count`, the hottest first.
    virtual std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome) = 0;
    virtual bool shows_key_names() const = 0;
    virtual const SlowLog& slow_log() const = 0;
    // TOML without secrets.
    virtual std::string config_text() const = 0;
    // While it is kept, the listed clients and connections stay alive.
    virtual std::shared_ptr<void> hold_still() = 0;
    // At most `limit` clients whose sessions' numbers are above `after`.
    virtual ClientList clients(uint64_t after, size_t limit) = 0;
    virtual ConnectionList connections(size_t limit) = 0;
    // Those of the cluster that own slots, or have; none: the upstream is one server.
    virtual std::vector<NodeFacts> nodes() = 0;
    // The number of replies dropped. Nothing: the near cache is switched off.
    virtual std::optional<uint64_t> clear_near_cache() = 0;
    // The outcome so far; while it is UnderWay the page asks again. The end of an upgrade is told
    // not by us but by the new process.
    virtual AdminChange reload() = 0;
    virtual const AdminChange& last_reload() const = 0;
    virtual AdminChange upgrade() = 0;
    virtual const AdminChange& last_upgrade() const = 0;
    virtual Log& log() = 0;

protected:
    ~AdminSource() = default;
};

struct AdminAnswer {
    unsigned status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::vector<std::pair<std::string, std::string>> headers = {};  // besides common ones
};

// {"error": what}, for the statuses 400 and up.
AdminAnswer admin_error(unsigned status, std::string_view what);

struct AdminRoute {
    std::string_view method;  // "GET", which includes HEAD, or "POST"
    std::string_view path;
    AdminAnswer (*answer)(AdminSource&, const AdminRequest&);
};

// Every page.
std::span<const AdminRoute> admin_routes();
// Those that other hosts may read (server.metrics): none tells of a client, a key or an option.
std::span<const AdminRoute> network_routes();

// The admin server's answer: the page, or why not. Over TCP anything on this host can connect, web
// pages in its browsers included, so the caller is checked. Over Network anybody may ask.
enum class AdminTransport { Unix, Tcp, Network };
AdminAnswer answer_admin(std::span<const AdminRoute> routes, AdminSource& source,
                         const AdminRequest& request, AdminTransport transport);

}  // namespace nearkey
