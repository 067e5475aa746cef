#include "nearkey/session/fan_in.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"

#include <utility>

namespace nearkey {

namespace {
using Kind = SubscriptionKind;

// A message in the client's protocol: RESP2 has no pushes, and the same behind the first byte.
void append_frame(std::string_view frame, Protocol protocol, auto& out) {
    if (frame.front() == '>' && protocol == Protocol::Resp2) {
        out.append("*");
        frame.remove_prefix(1);
    }
    out.append(frame);
}
}  // namespace

FanIn::FanIn(Desk& desk) : desk_(desk), feeds_(desk, *this) {
}

FanIn::~FanIn() {
    close();
}

void FanIn::close() {
    feeds_.close();
    NearCache* const cache = desk_.context.ledgers.cache;
    if (std::exchange(is_monitor_, false) && cache != nullptr) cache->remove_monitor();
}

// --- the client's commands ---

Executed FanIn::execute(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    const std::string& name = call.spec()->name;
    for (size_t i = 0; i < kSubscriptionWords.size(); ++i) {
        const SubscriptionWords& words = kSubscriptionWords[i];
        if (name == words.subscribe) return subscribe(call, static_cast<Kind>(i));
        if (name == words.unsubscribe) return unsubscribe(call, static_cast<Kind>(i));
    }
    answer_ping(call);
    return Executed::Yes;
}

Executed FanIn::pause_for_nodes() {
    desk_.pauses.pause(PauseReason::kLease, nullptr);
    return Executed::NotYet;
}

Executed FanIn::subscribe(const Call& call, SubscriptionKind kind) {
    if (kind == Kind::Monitor && is_monitor_) {
        // The server says nothing to a second one.
        desk_.tally.count_answered(call.spec());
        return Executed::Yes;
    }
    if (!feeds_.is_asking()) {
        if (kind == Kind::Monitor) feeds_.add(kind, {});
        for (size_t i = 1; i < call.command.size(); ++i)
            feeds_.add(kind, call.command[i]);
        feeds_.ask();
    }
    if (!feeds_.is_answered()) return pause_for_nodes();
    const std::string words = feeds_.end_asking();
    if (words.empty()) {
        confirm(call, kind);
    } else {
        drop_unshown();
        desk_.answer_error(call.spec(), words);
    }
    return Executed::Yes;
}

void FanIn::confirm(const Call& call, SubscriptionKind kind) {
    std::string reply;
    if (kind == Kind::Monitor) {
        feeds_.names(kind).begin()->second.is_shown = is_monitor_ = true;
        NearCache* const cache = desk_.context.ledgers.cache;
        if (cache != nullptr) cache->add_monitor();
        reply = "+OK\r\n";
    }
    for (size_t i = 1; i < call.command.size(); ++i) {
        const std::string_view name = call.command[i];
        const auto found = feeds_.names(kind).find(name);
        NEARKEY_CHECK(found != feeds_.names(kind).end());
        if (!std::exchange(found->second.is_shown, true)) ++shown_[static_cast<size_t>(kind)];
        append_confirmation(reply, words_of(kind).subscribe, kind, &name);
    }
    desk_.answer(call.spec(), reply);
    desk_.output.append(early_);
    desk_.output.commit();
    early_ = {};
}

void FanIn::forget_waiting() {
    is_leaving_ = false;
    if (!feeds_.is_asking()) return;
    static_cast<void>(feeds_.end_asking());
    drop_unshown();
}

void FanIn::drop_unshown() {
    early_ = {};
    for (size_t i = 0; i < kSubscriptionWords.size(); ++i) {
        Feeds::Names& names = feeds_.names(static_cast<Kind>(i));
        for (auto each = names.begin(); each != names.end();) {
            const auto found = each++;
            if (!found->second.is_shown) remove(static_cast<Kind>(i), found);
        }
    }
    feeds_.leave();
}

Executed FanIn::unsubscribe(const Call& call, SubscriptionKind kind) {
    if (const auto executed = leave(call.command, kind)) return *executed;
    if (count(Kind::Channel) == 0 && count(Kind::Shard) == 0) {
        if (const auto executed = unsubscribe_from_nothing(call, kind)) {
            is_leaving_ = *executed == Executed::NotYet;
            return *executed;
        }
    }
    const std::string_view word = words_of(kind).unsubscribe;
    std::string reply;
    Feeds::Names& names = feeds_.names(kind);
    if (call.command.size() == 1 && names.empty()) append_confirmation(reply, word, kind, nullptr);
    while (call.command.size() == 1 && !names.empty()) {
        const std::string name = names.begin()->first;
        const std::string_view shown = name;
        remove(kind, names.begin());
        append_confirmation(reply, word, kind, &shown);
    }
    for (size_t i = 1; i < call.command.size(); ++i) {
        const std::string_view name = call.command[i];
        const auto found = names.find(name);
        if (found != names.end()) remove(kind, found);
        append_confirmation(reply, word, kind, &name);
    }
    feeds_.leave();
    is_leaving_ = false;
    desk_.answer(call.spec(), reply);
    return Executed::Yes;
}

// What was published before comes before the confirmation, and a client that counts subscribers
// afterwards, over any connection, counts without these.
std::optional<Executed> FanIn::leave(const CommandView& command, SubscriptionKind kind) {
    Feeds::Names& names = feeds_.names(kind);
    if (!std::exchange(is_leaving_, true)) {
        for (size_t i = 1; i < command.size(); ++i) {
            const auto found = names.find(command[i]);
            if (found != names.end()) feeds_.announce_leaving(kind, found);
        }
        for (auto each = names.begin(); command.size() == 1 && each != names.end(); ++each)
            feeds_.announce_leaving(kind, each);
        feeds_.leave();
    }
    if (feeds_.has_left()) return std::nullopt;
    return pause_for_nodes();
}

std::optional<Executed> FanIn::leave_all() {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (!std::exchange(is_leaving_, true)) {
        for (size_t i = 0; i < kSubscriptionWords.size(); ++i) {
            const auto kind = static_cast<Kind>(i);
            Feeds::Names& names = feeds_.names(kind);
            for (auto each = names.begin(); each != names.end(); ++each)
                feeds_.announce_leaving(kind, each);
        }
        feeds_.leave();
    }
    if (feeds_.has_left()) return std::nullopt;
    return pause_for_nodes();
}

// Some servers confirm that, others say that it is an error (NOSUB).
std::optional<Executed> FanIn::unsubscribe_from_nothing(const Call& call, SubscriptionKind kind) {
    if (!feeds_.is_asking()) feeds_.probe(kind);
    if (!feeds_.is_answered()) return pause_for_nodes();
    const std::string words = feeds_.end_asking();
    if (words.empty()) return std::nullopt;
    desk_.answer_error(call.spec(), words);
    return Executed::Yes;
}

// In RESP3 a subscriber's PING is any client's.
void FanIn::answer_ping(const Call& call) {
    if (call.command.size() > 2) {
        desk_.answer_error(call.spec(), "ERR wrong number of arguments for 'ping' command");
        return;
    }
    std::string reply;
    append_array_header(reply, 2);
    append_bulk(reply, "pong");
    append_bulk(reply, call.command.size() == 2 ? call.command[1] : std::string_view());
    desk_.answer(call.spec(), reply);
}

void FanIn::append_confirmation(std::string& reply, std::string_view word, SubscriptionKind kind,
                                const std::string_view* name) const {
    const Protocol protocol = desk_.client.protocol;
    reply += protocol == Protocol::Resp3 ? ">3\r\n" : "*3\r\n";
    append_bulk(reply, word);
    if (name == nullptr) {
        append_null(reply, protocol);
    } else {
        append_bulk(reply, *name);
    }
    append_integer(reply, static_cast<int64_t>(count(kind)));
}

void FanIn::remove(SubscriptionKind kind, Feeds::Names::iterator found) {
    if (found->second.is_shown) --shown_[static_cast<size_t>(kind)];
    feeds_.remove(kind, found);
}

size_t FanIn::count(SubscriptionKind kind) const {
    const auto shown = [this](SubscriptionKind of) { return shown_[static_cast<size_t>(of)]; };
    return kind == Kind::Shard ? shown(kind) : shown(Kind::Channel) + shown(Kind::Pattern);
}

Hearing FanIn::hearing() const {
    const bool is_subscriber = count(Kind::Channel) > 0 || count(Kind::Shard) > 0;
    if (is_subscriber && desk_.client.protocol == Protocol::Resp2) return Hearing::Messages;
    return is_monitor_ ? Hearing::Commands : Hearing::Nothing;
}

// --- messages ---

void FanIn::on_message(const Subscription& subscription, std::string_view frame) {
    if (desk_.is_over() || desk_.is_input_stopped()) return;
    const Protocol protocol = desk_.client.protocol;
    if (!subscription.is_shown) {
        append_frame(frame, protocol, early_);
    } else if (desk_.output.reply_size() > 0) {
        append_frame(frame, protocol, held_);
    } else {
        append_frame(frame, protocol, desk_.output);
        desk_.output.commit();
        desk_.flush_soon();
    }
}

void FanIn::show_held() {
    if (held_.empty()) return;
    desk_.output.append(held_);
    desk_.output.commit();
    held_ = {};
}

void FanIn::on_feed_read() {
    if (desk_.is_over()) return;
    const size_t bytes = desk_.unsent() + waiting_bytes() + feeds_.partial_bytes();
    if (bytes > desk_.terms.limits.output_per_client_max) {
        desk_.close_for_output();
        return;
    }
    update_reading();
    desk_.account();
}

void FanIn::update_reading() {
    const uint64_t high_water = desk_.terms.limits.output_per_client_high_water;
    const bool is_full = unsent() >= high_water;
    const bool is_short = desk_.pauses.any_of(PauseReason::kMemory);
    if (feeds_.is_reading() && (is_full || is_short)) {
        if (is_full) ++desk_.context.metrics.clients_paused_output_total;
        feeds_.set_reading(false);
    } else if (!feeds_.is_reading() && !is_short && unsent() <= high_water / 2) {
        feeds_.set_reading(true);
    }
}

// Ends as if its connection were lost; at once, if it takes nothing.
void FanIn::on_feeds_lost(std::string_view why) {
    desk_.warn("subscriber_closed", why);
    desk_.cut();
    if (!feeds_.is_reading()) desk_.end();
}

}  // namespace nearkey
