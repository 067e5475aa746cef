#include "nearkey/session/feed.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/lease.h"
#include "nearkey/upstream/own_question.h"

#include <charconv>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kPongMax = 512;

std::string_view without_line_end(std::string_view line) {
    while (line.ends_with('\n') || line.ends_with('\r'))
        line.remove_suffix(1);
    return line;
}

// The text of the bulk string at the front of `rest`, which moves behind it; empty: there is none.
// REQUIRES: a frame that was scanned.
std::string_view take_bulk(std::string_view& rest) {
    const size_t line = rest.find("\r\n");
    if (line == std::string_view::npos || rest.front() != '$') return {};
    size_t size = 0;
    const auto [end, error] = std::from_chars(rest.data() + 1, rest.data() + line, size);
    if (error != std::errc() || end != rest.data() + line) return {};
    const std::string_view text = rest.substr(line + 2, size);
    rest.remove_prefix(std::min(rest.size(), line + 2 + size + 2));
    return text;
}
}  // namespace

Feed::Feed(Desk& desk, Node& node, FeedEvents& events)
    : desk_(desk), node_(&node), events_(events) {
    ++desk_.context.metrics.upstream_tunnels;
}

Feed::~Feed() {
    close();
    --desk_.context.metrics.upstream_tunnels;
}

// --- its lease ---

void Feed::open() {
    if (state_ != State::Waiting) return;
    const ClientState& client = desk_.client;
    connection_ = node_->leases().lease({Protocol::Resp3, client.database, client.identity}, *this);
    if (connection_ == nullptr) return;
    state_ = State::Proving;
    connection_->use().set_owner(this);
    introduce(*connection_, client.identity, *node_, desk_.context.encoded);
    connection_->send({kPing, this, 0, RequestKind::Write});
}

void Feed::close() {
    if (state_ == State::Waiting) node_->leases().stop_waiting(*this);
    state_ = State::Over;
    give_back();
}

void Feed::give_back() {
    if (connection_ == nullptr) return;
    connection_->forget(*this);
    node_->leases().give_back(*std::exchange(connection_, nullptr), LeaseEnd::Dirty);
}

void Feed::finish(std::string_view why) {
    if (state_ == State::Over) return;
    state_ = State::Over;
    give_back();
    events_.on_feed_over(*this, why);
}

void Feed::on_lease_refused() {
    finish("ERR nearkey has no dedicated connection left (upstream.dedicated_max)");
}

void Feed::on_connection_lost() {
    finish("UPSTREAMDOWN the connection to the node was lost");
}

void Feed::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (pong_.size() + bytes.size() <= kPongMax) pong_ += bytes;
}

void Feed::on_reply_end(uint32_t) {
    if (pong_.starts_with('-')) {
        const std::string why(without_line_end(pong_).substr(1));
        finish(why);
        return;
    }
    state_ = State::Open;
    has_served_ = true;
    connection_->begin_tunnel();
    if (!is_reading_) {
        connection_->tunnel().pause_reading();
        behind_until_ = UINT64_MAX;
    }
    for (FeedOrder& order : orders_)
        transmit(order);
}

void Feed::on_request_failed(uint32_t, std::string_view error) {
    const std::string why(error);
    finish(why);
}

void Feed::set_reading(bool is_reading) {
    if (std::exchange(is_reading_, is_reading) == is_reading || state_ != State::Open) return;
    if (is_reading) {
        connection_->tunnel().resume_reading();
        behind_until_ = order(SubscriptionKind::Channel, true, {});
    } else {
        connection_->tunnel().pause_reading();
        behind_until_ = UINT64_MAX;
    }
}

// --- what it is told ---

uint64_t Feed::order(SubscriptionKind kind, bool subscribes, std::vector<std::string> names) {
    NEARKEY_CHECK(state_ != State::Over);
    const uint64_t number = ++last_order_;
    FeedOrder& added = orders_.emplace_back(FeedOrder{
        .number = number, .kind = kind, .subscribes = subscribes, .names = std::move(names)});
    if (state_ == State::Open) transmit(added);
    return number;
}

void Feed::transmit(FeedOrder& order) {
    const SubscriptionWords& words = words_of(order.kind);
    const bool is_monitor = order.kind == SubscriptionKind::Monitor;
    std::string& bytes = desk_.context.encoded;
    bytes.clear();
    if (!order.names.empty() || !order.subscribes) {
        append_array_header(bytes, is_monitor ? 1 : order.names.size() + 1);
        append_bulk(bytes, order.subscribes ? words.subscribe : words.unsubscribe);
    }
    for (const std::string& name : order.names)
        if (!is_monitor) append_bulk(bytes, name);
    // Behind MONITOR it would be shown.
    if (!is_monitor) bytes += kUnwatchCommand;
    order.sent_ms = desk_.context.loop.now_ms();
    connection_->tunnel().send(bytes);
}

// --- what it says ---

void Feed::on_tunnel_bytes(std::string_view bytes) {
    while (!bytes.empty() && state_ == State::Open) {
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            finish("UPSTREAMDOWN the node said what is not RESP");
            return;
        }
        const std::string_view piece = bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        if (result == ScanResult::Complete && partial_.empty()) {
            take(piece);
            continue;
        }
        partial_ += piece;
        if (result == ScanResult::Complete) {
            const std::string frame = std::exchange(partial_, {});
            take(frame);
        }
    }
    if (state_ == State::Open) events_.on_feed_read();
}

void Feed::take(std::string_view frame) {
    switch (frame.front()) {
        case '>':
            take_push(frame);
            break;
        case '-':
            take_error(without_line_end(frame).substr(1));
            break;
        case '+':
            frame == "+OK\r\n" ? note_reply() : events_.on_line(*this, frame);
            break;
        default:
            break;
    }
}

void Feed::take_push(std::string_view frame) {
    const size_t line = frame.find("\r\n");
    std::string_view rest = frame.substr(line + 2);
    const std::string_view word = take_bulk(rest);
    for (const SubscriptionKind kind :
         {SubscriptionKind::Channel, SubscriptionKind::Pattern, SubscriptionKind::Shard}) {
        if (word != words_of(kind).message) continue;
        const std::string_view name = take_bulk(rest);
        const bool is_pattern = kind == SubscriptionKind::Pattern;
        const std::string_view channel = is_pattern ? take_bulk(rest) : name;
        events_.on_message(*this, {kind, name, channel, frame});
        return;
    }
    if (word == words_of(SubscriptionKind::Shard).unsubscribe) {
        events_.on_taken_away(*this, take_bulk(rest));
    }
}

// UNWATCH is never refused but by a rule for nearkey's user.
void Feed::take_error(std::string_view line) {
    if (orders_.empty()) return;
    FeedOrder& order = orders_.front();
    const bool is_of_unwatch =
        line.starts_with("NOPERM") && line.find("'unwatch'") != std::string_view::npos;
    if (!is_of_unwatch && order.error.empty()) order.error = line;
    if (is_of_unwatch || order.kind == SubscriptionKind::Monitor) note_reply();
}

void Feed::note_reply() {
    if (orders_.empty()) return;
    const FeedOrder order = std::move(orders_.front());
    orders_.pop_front();
    if (order.number >= behind_until_) behind_until_ = 0;
    events_.on_order_done(*this, order);
}

}  // namespace nearkey
