#include "nearkey/session/followed_commands.h"

#include "nearkey/dispatch/placement.h"
#include "nearkey/resp/redirect.h"
#include "nearkey/upstream/cluster.h"
#include "nearkey/upstream/error_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kNoScript = "-NOSCRIPT ";
constexpr std::string_view kHasNone = "*1\r\n:0\r\n";  // the answer of SCRIPT EXISTS
constexpr size_t kRefusalMax = 512;

// What a node says that does not run it, or not now, or does not know the script.
bool may_be_refusal(std::string_view words) {
    return words.size() <= kRefusalMax && (may_be_elsewhere(words) || may_become(words, kNoScript));
}
}  // namespace

FollowedCommands::FollowedCommands(Desk& desk, Lease& lease)
    : desk_(desk), lease_(lease), wait_(desk.context.loop, [this] { go_on(); }), asker_(*this) {
}

void FollowedCommands::send(const Call& call, RequestKind kind) {
    desk_.count_forwarded(call.spec());
    desk_.client.has_written |= kind != RequestKind::Read;
    const uint32_t ticket = desk_.replies.open(1);
    if (in_flight_ == 0) {
        first_sent_ = ticket;
        sent_ = 0;
        counts_.clear();
        is_asking_ = false;
    }
    ++sent_;
    counts_.emplace_back(ticket, &desk_.tally.row(call.spec()));
    desk_.ledger.begin(call.plan, call.command, ticket, lease_.way());
    ++in_flight_;
    lease_->send({desk_.canonical(call.command), this, ticket, kind, 1, desk_.ledger.awaited_ms(),
                  desk_.timing(call, kind)});
}

// --- replies ---

void FollowedCommands::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (!is_passing_ && (!words_.empty() || bytes.starts_with('-'))) {
        const bool is_begin = words_.empty();
        words_ += bytes;
        if (may_be_refusal(words_)) {
            if (is_begin) refused_ = lease_->in_flight().copy_head();
            return;
        }
        count_error(ticket, words_);
        bytes = {};
        refused_ = {};
    }
    is_passing_ = true;
    if (!words_.empty()) desk_.receiver().on_reply_bytes(ticket, std::exchange(words_, {}));
    if (!bytes.empty()) desk_.receiver().on_reply_bytes(ticket, bytes);
}

void FollowedCommands::on_reply_end(uint32_t ticket) {
    --in_flight_;
    is_passing_ = false;
    if (words_.empty() || desk_.is_over() || !park(ticket)) {
        refused_ = {};
        if (!words_.empty()) {
            count_error(ticket, words_);
            desk_.receiver().on_reply_bytes(ticket, std::exchange(words_, {}));
        }
        forget_count(ticket);
        desk_.receiver().on_reply_end(ticket);
    }
    if (in_flight_ == 0) follow();
}

bool FollowedCommands::on_reply_void(uint32_t ticket) {
    words_.clear();
    is_passing_ = false;
    return desk_.receiver().on_reply_void(ticket);
}

void FollowedCommands::on_request_failed(uint32_t ticket, std::string_view error) {
    --in_flight_;
    words_.clear();
    is_passing_ = false;
    count_error(ticket, error);
    forget_count(ticket);
    desk_.receiver().on_request_failed(ticket, error);
    // What is parked could not be asked about.
    if (in_flight_ == 0) give_up();
}

// Replies come in order: before it are those that are parked.
auto FollowedCommands::find_count(uint32_t ticket) -> Counts::iterator {
    return std::find_if(counts_.begin(), counts_.end(),
                        [ticket](const auto& each) { return each.first == ticket; });
}

void FollowedCommands::count_error(uint32_t ticket, std::string_view error) {
    const auto found = find_count(ticket);
    if (found != counts_.end()) found->second->count_error(error);
}

void FollowedCommands::forget_count(uint32_t ticket) {
    const auto found = find_count(ticket);
    if (found != counts_.end()) counts_.erase(found);
}

// One that was sent again goes before those that were not. False: its words are the reply.
bool FollowedCommands::park(uint32_t ticket) {
    Parked parked;
    parked.lacks_script = words_.starts_with(kNoScript);
    if (parked.lacks_script && script_of(refused_.bytes).empty()) return false;
    // A node speaks of the command's own slot.
    const auto redirect = read_redirect(words_);
    const bool names_slot = redirect && redirect->slot >= 0;
    if (names_slot && redirect->slot != desk_.context.cluster->slot_of_command(refused_.bytes)) {
        return false;
    }
    parked.is_asking = is_asking_;
    parked.was_late = words_.starts_with("-TRYAGAIN ") || words_.starts_with("-CLUSTERDOWN ");
    parked.request = std::exchange(refused_, {});
    parked.words = std::exchange(words_, {});
    lease_.note_reply(true);
    // Nothing more is run before it is answered, so that nothing overtakes it.
    desk_.pauses.pause(PauseReason::kUntilIdle, nullptr);
    parked_bytes_ += parked.request.bytes.size();
    const auto behind = std::find_if(parked_.begin(), parked_.end(), [ticket](const Parked& each) {
        return each.request.request.ticket - ticket < UINT32_MAX / 2;
    });
    parked_.insert(behind, std::move(parked));
    desk_.account();
    return true;
}

FollowedCommands::Parked FollowedCommands::take_first() {
    Parked first = std::move(parked_.front());
    parked_.pop_front();
    parked_bytes_ -= first.request.bytes.size();
    return first;
}

// The body of the script that it names by its SHA1, if its node was never told that.
std::string FollowedCommands::script_of(std::string_view bytes) const {
    CommandParser parser(static_cast<int64_t>(bytes.size()));
    KnownScripts* const scripts = desk_.context.scripts;
    if (scripts == nullptr || parser.next(bytes) != ParseResult::Command) return {};
    const CommandSpec* const spec = desk_.context.node.catalog().commands().find(parser.command());
    if (spec == nullptr || !spec->name.starts_with("evalsha")) return {};
    return scripts->body_for(parser.command()[1], id_of(*desk_.context.cluster, lease_.node()));
}

// --- where it is run ---

// About its keys, or about the script that is not there; empty: it has none.
std::string FollowedCommands::question_about(const Parked& parked) const {
    const std::string& bytes = parked.request.bytes;
    CommandParser parser(static_cast<int64_t>(bytes.size()));
    if (parser.next(bytes) != ParseResult::Command) return {};
    const CommandView& command = parser.command();
    const CommandSpec* const spec = desk_.context.node.catalog().commands().find(command);
    std::string question;
    if (parked.lacks_script) {
        append_command(question, {"SCRIPT", "EXISTS", command[1]});
        return question;
    }
    std::vector<std::string_view> words{"EXISTS"};
    if (spec == nullptr || !spec->find_first_key(command, words)) return {};
    append_command(question, words);
    return question;
}

// Asks about those that were refused by this node, then acts on the first.
void FollowedCommands::follow() {
    if (parked_.empty() || desk_.is_over()) return;
    const bool may_ask = lease_ && lease_->is_ready();
    for (Parked& parked : parked_) {
        if (parked.verdict != Verdict::None) continue;
        const std::string question = may_ask ? question_about(parked) : std::string();
        parked.verdict = Verdict::Run;
        if (question.empty()) continue;
        ++asked_;
        if (parked.is_asking && !parked.lacks_script) ask_for_leave();
        lease_->send({question, &asker_, parked.request.request.ticket, RequestKind::Write});
    }
    if (asked_ == 0) act();
}

void FollowedCommands::on_answer(uint32_t ticket, const std::string& reply) {
    using Kind = Redirect::Kind;
    if (desk_.is_over()) return;
    --asked_;
    Parked& parked = *std::find_if(parked_.begin(), parked_.end(), [ticket](const Parked& each) {
        return each.request.request.ticket == ticket;
    });
    const auto redirect = reply.starts_with('-') ? read_redirect(reply) : std::nullopt;
    if (parked.lacks_script) {
        parked.verdict = reply == kHasNone ? Verdict::Elsewhere : Verdict::Run;
        parked.node = lease_.node().coherence().number();
    } else if (redirect) {
        Cluster& cluster = *desk_.context.cluster;
        parked.slot = cluster.slot_of_command(parked.request.bytes);
        parked.node = cluster.follow(*lease_.connection(), *redirect, parked.slot);
        const bool names_node = redirect->kind == Kind::Moved || redirect->kind == Kind::Ask;
        parked.verdict = names_node ? Verdict::Elsewhere : Verdict::Later;
        parked.is_asking = redirect->kind == Kind::Ask;
        // Words that a client may read are kept: a script may have said them.
        if (!parked.was_late)
            parked.words = names_node ? fmt::format(
                                            "-TRYAGAIN slot {} moved, where to is not known "
                                            "yet; not run\r\n",
                                            parked.slot)
                                      : reply;
    }
    if (asked_ == 0) act();
}

void FollowedCommands::on_no_answer() {
    --asked_;
    if (asked_ == 0) act();
}

// Each has its verdict. Until one is on its way.
void FollowedCommands::act() {
    Cluster& cluster = *desk_.context.cluster;
    while (!parked_.empty() && !desk_.is_over()) {
        Parked& first = parked_.front();
        PendingRequest& request = first.request.request;
        const bool is_known = first.verdict == Verdict::Elsewhere && cluster.find(first.node);
        const bool may_not_wait = (first.was_late || !is_known) && is_overtaken();
        if (first.verdict == Verdict::Run || may_not_wait) {
            answer_first();
        } else if (!is_known) {
            if (delay()) return;
            answer_first();
        } else if (request.redirects >= cluster.options().redirects_max) {
            fail_first(with_place(Cluster::kCircle, place_in_words(first.slot, {})));
        } else {
            ++request.redirects;
            return go_to(first.node, first.is_asking);
        }
    }
}

void FollowedCommands::go_to(uint16_t node, bool is_asking) {
    Node& target = *desk_.context.cluster->find(node);
    is_asking_ = is_asking;
    if (lease_ && (!lease_.is_of(target) || !lease_->is_ready())) {
        // A client that leaves while it waits must be noticed there, too.
        const bool is_blocked = lease_.is_blocked();
        lease_.end();
        lease_.set_blocked(is_blocked);
    }
    if (!lease_) lease_.turn_to(target);
    take_lease();
}

void FollowedCommands::take_lease() {
    const bool is_there = lease_ || lease_.take_one(false);
    wait_.wait_for_lease(!is_there);
    waits_for_lease_ = !is_there;
    if (!is_there) return;
    desk_.pauses.unpause(PauseReason::kLease);
    lease_.expect_any_text();
    Parked first = take_first();
    if (first.lacks_script) load(first);
    if (is_asking_) ask_for_leave();
    first.request.request.receiver = this;
    ++in_flight_;
    lease_->send_again(first.request);
}

// The next command is one about a slot that comes to this node.
void FollowedCommands::ask_for_leave() {
    lease_->send({Cluster::kAsking, &desk_.context.node.discard(), 0, RequestKind::Write});
}

// The node learns the script before the command comes, unless it has for the one before.
void FollowedCommands::load(const Parked& parked) {
    const std::string script = script_of(parked.request.bytes);
    if (script.empty()) return;
    std::string bytes;
    append_command(bytes, {"SCRIPT", "LOAD", script});
    lease_->send({bytes, &desk_.context.node.discard(), 0, RequestKind::Write});
    CommandParser parser(static_cast<int64_t>(parked.request.bytes.size()));
    if (parser.next(parked.request.bytes) != ParseResult::Command) return;
    desk_.context.scripts->note_told(parser.command()[1],
                                     id_of(*desk_.context.cluster, lease_.node()));
    ++desk_.context.metrics.cluster_scripts_loaded_total;
}

// What was sent behind the first has run: if that comes later they change places.
bool FollowedCommands::is_overtaken() const {
    const uint32_t behind = desk_.replies.next() - parked_.front().request.request.ticket;
    return behind != parked_.size() ||
           std::any_of(parked_.begin(), parked_.end(),
                       [](const Parked& each) { return each.verdict == Verdict::Run; });
}

// False: it has waited long enough.
bool FollowedCommands::delay() {
    PendingRequest& request = parked_.front().request.request;
    const Node& node = desk_.context.node;
    const auto wait_ms = DelayedRequests::wait_of(request, desk_.context.loop.now_ms(),
                                                  node.options().queue_timeout_ms);
    if (!wait_ms) return false;
    ++request.delays;
    request.redirects = 0;  // It goes the same way once more.
    ++desk_.context.metrics.cluster_delayed_total;
    wait_.pause(*wait_ms);
    return true;
}

void FollowedCommands::go_on() {
    if (parked_.empty() || desk_.is_over()) return;
    if (wait_.take_refusal()) {
        waits_for_lease_ = false;
        desk_.pauses.unpause(PauseReason::kLease);
        fail_first(PrimaryWait::kNoLease);
        return give_up();
    }
    if (std::exchange(waits_for_lease_, false)) return take_lease();
    Cluster& cluster = *desk_.context.cluster;
    go_to(cluster.node_for(parked_.front().request.bytes).coherence().number(), false);
}

// --- the end ---

// Its words are the reply, but those that a client could follow: whether a node or the script has
// said them can't be known, for the slot may have come back.
void FollowedCommands::answer_first() {
    const Parked first = take_first();
    const uint32_t ticket = first.request.request.ticket;
    const auto redirect = read_redirect(first.words);
    const bool is_unsure = redirect && redirect->slot >= 0;
    const std::string words =
        is_unsure ? fmt::format(
                        "-TRYAGAIN slot {} moved, by the word of its node or of the "
                        "script; may have run\r\n",
                        redirect->slot)
                  : first.words;
    count_error(ticket, words);
    forget_count(ticket);
    desk_.receiver().on_reply_bytes(ticket, words);
    desk_.receiver().on_reply_end(ticket);
}

void FollowedCommands::fail_first(std::string_view error) {
    const uint32_t ticket = take_first().request.request.ticket;
    count_error(ticket, error);
    forget_count(ticket);
    desk_.receiver().on_request_failed(ticket, error);
}

// The node that was to run the first can't be had.
void FollowedCommands::give_up() {
    while (!parked_.empty() && !desk_.is_over())
        answer_first();
}

void FollowedCommands::forget_replies(Connection& connection) {
    connection.forget(*this);
    connection.forget(asker_);
    in_flight_ = asked_ = 0;
    words_.clear();
    is_passing_ = false;
}

void FollowedCommands::close() {
    wait_.stop();
    parked_.clear();
    parked_bytes_ = 0;
}

}  // namespace nearkey
