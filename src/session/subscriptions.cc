#include "nearkey/session/subscriptions.h"

#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/subscription_kind.h"

#include <algorithm>
#include <span>
#include <utility>

namespace nearkey {

namespace {

// The kinds in the order of Subscriptions::names_.
constexpr std::span kKinds = std::span(kSubscriptionWords).first<3>();

// Memory of a name beside its bytes.
constexpr size_t kNameBytes = 96;
// "*3\r\n$12\r\npunsubscribe\r\n": that many bytes tell the kind of a reply.
constexpr size_t kHeadMax = 24;

// The first word of an array or a push; empty: it is not whole.
std::string_view first_word(std::string_view head) {
    for (int line = 0; line < 2; ++line) {
        const size_t end = head.find("\r\n");
        if (end == std::string_view::npos) return {};
        head.remove_prefix(end + 2);
    }
    return head.substr(0, head.find('\r'));
}

}  // namespace

bool Subscriptions::is_about(const CommandSpec* spec) {
    return spec != nullptr && spec->is_about_subscriptions();
}

void Subscriptions::follow(const CommandSpec* spec, const CommandView& command) {
    if (is_spoilt_) return;
    const bool is_call = spec != nullptr && spec->accepts(command.size());
    if (is_call && spec->name == "ping") {
        ++owed_;
        return;
    }
    if (!is_call || !is_about(spec)) {
        spoil();
        return;
    }
    for (size_t i = 0; i < names_.size(); ++i) {
        const bool adds = spec->name == kKinds[i].subscribe;
        if (!adds && spec->name != kKinds[i].unsubscribe) continue;
        if (command.size() == 1) {
            // Without names: each that there is, or one answer that there is none.
            owed_ += std::max<size_t>(names_[i].size(), 1);
            while (!names_[i].empty())
                remove(names_[i], *names_[i].begin());
            continue;
        }
        owed_ += command.size() - 1;
        for (size_t place = 1; place < command.size(); ++place)
            adds ? add(names_[i], command[place]) : remove(names_[i], command[place]);
    }
    if (size() > kNamesMax || bytes_ > kBytesMax) spoil();
}

void Subscriptions::add(Names& names, std::string_view name) {
    if (size() > kNamesMax || bytes_ > kBytesMax) return;
    if (names.emplace(name).second) bytes_ += name.size() + kNameBytes;
}

void Subscriptions::remove(Names& names, std::string_view name) {
    const auto found = names.find(name);
    if (found == names.end()) return;
    bytes_ -= found->size() + kNameBytes;
    names.erase(found);
}

void Subscriptions::spoil() {
    is_spoilt_ = true;
    for (Names& names : names_)
        names.clear();
    bytes_ = 0;
}

std::string Subscriptions::give_up() {
    spoil();
    unconfirmed_ = 0;
    const bool is_held = std::exchange(reply_, Reply::Message) == Reply::Unknown;
    return is_held ? std::exchange(head_, {}) : std::string{};
}

std::string_view Subscriptions::pass(std::string_view piece, bool is_begin, bool is_end) {
    if (is_begin) {
        const bool is_asked = unconfirmed_ > 0 || (owed_ > 0 && !is_spoilt_);
        reply_ = is_asked ? Reply::Unknown : Reply::Message;
        head_.clear();
    }
    if (reply_ == Reply::Unknown) {
        if (is_begin && (is_end || piece.size() >= kHeadMax)) {
            // The usual case: nothing is copied.
            head_.assign(piece.substr(0, kHeadMax));
            reply_ = judge(true);
        } else {
            head_ += piece;
            reply_ = judge(is_end || head_.size() >= kHeadMax);
            piece = reply_ == Reply::Unknown ? std::string_view{} : head_;
        }
    }
    if (reply_ == Reply::Ours) piece = {};
    if (is_end && reply_ == Reply::Ours) --unconfirmed_;
    if (is_end && reply_ == Reply::Answer && owed_ > 0) --owed_;
    return piece;
}

// Judges by the first word, if that is there: the reply to a subscriber's PING is an array, too.
Subscriptions::Reply Subscriptions::judge(bool is_end) {
    const bool has_word = head_.front() == '*' || head_.front() == '>';
    const std::string_view word = has_word ? first_word(head_) : std::string_view{};
    if (has_word && !is_end) return Reply::Unknown;
    if (has_word && !word.ends_with("subscribe") && word != "pong") return Reply::Message;
    const bool is_error = head_.front() == '-';
    if (unconfirmed_ > 0) {
        is_refused_ = is_refused_ || is_error;
        return Reply::Ours;
    }
    if (is_error) spoil();
    return Reply::Answer;
}

std::string Subscriptions::begin_anew() {
    std::string commands;
    for (size_t i = 0; i < names_.size(); ++i) {
        if (names_[i].empty()) continue;
        append_array_header(commands, names_[i].size() + 1);
        append_bulk(commands, kKinds[i].subscribe);
        for (const std::string& name : names_[i])
            append_bulk(commands, name);
    }
    unconfirmed_ = size();
    reply_ = Reply::Message;
    head_.clear();
    return commands;
}

size_t Subscriptions::size() const {
    size_t size = 0;
    for (const Names& names : names_)
        size += names.size();
    return size;
}

}  // namespace nearkey
