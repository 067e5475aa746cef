#include "nearkey/session/nodes_in_turn.h"

#include "nearkey/resp/gather.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"
#include "nearkey/upstream/own_question.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace nearkey {

namespace {

// What a node replicates it has replicated behind all that it was told before. A cluster does not
// replicate SPUBLISH, and a key that comes and goes in one script is never seen.
constexpr std::string_view kMarkScript = "redis.call('set',KEYS[1],'')redis.call('del',KEYS[1])";

std::string mark_of(uint16_t slot) {
    const std::string key = fmt::format("nearkey:wait:{{{}}}", tag_of(slot));
    std::string bytes;
    append_command(bytes, {"EVAL", kMarkScript, "1", key});
    return bytes;
}

// A slot of the node; nothing: it has none any more.
std::optional<uint16_t> slot_at(Cluster& cluster, const Node& node) {
    for (uint16_t slot = 0; slot < kSlots; ++slot)
        if (&cluster.owner(slot) == &node) return slot;
    return std::nullopt;
}

std::string address_of(const Node& node) {
    return to_text(node.target().url.endpoint());
}

}  // namespace

bool NodesInTurn::takes(const Call& call) {
    const Way way = call.plan.way;
    const bool is_leased = way == Way::Lease || way == Way::Script || way == Way::Wait;
    return is_leased && call.is_sound() && call.spec()->spread == Spread::EachNode;
}

Executed NodesInTurn::forward(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    using State = Lease::Preparation::State;
    if (!std::exchange(has_begun_, true)) {
        is_marked_ = false;
        begun_ms_ = desk_.context.loop.now_ms();
        asked_.clear();
        ids_.clear();
        replies_.clear();
    }
    if (lease_.preparation().state == State::Pending) {
        desk_.pauses.pause(PauseReason::kLease, nullptr);
        return Executed::NotYet;
    }
    if (lease_.preparation().state == State::Done) {
        const bool is_mark = call.plan.before == Before::Mark && !is_marked_;
        if (!(is_mark ? take_mark(call) : take_reply(call))) return Executed::Yes;
    }
    Node* const node = next_node();
    if (node != nullptr) return ask(call, *node);
    answer(call);
    return Executed::Yes;
}

// One that was not asked yet.
Node* NodesInTurn::next_node() {
    for (Node* const node : desk_.context.cluster->primaries.nodes()) {
        if (std::find(asked_.begin(), asked_.end(), address_of(*node)) == asked_.end()) return node;
    }
    return nullptr;
}

Executed NodesInTurn::ask(const Call& call, Node& node) {
    if (const auto executed = lease_.take_at(node, call)) {
        if (*executed == Executed::Yes) finish(call, {});
        return *executed;
    }
    const bool waits = call.special() == Special::Wait;
    lease_.set_blocked(waits);
    if (waits && call.plan.before == Before::Mark && !is_marked_) {
        const auto slot = slot_at(*desk_.context.cluster, node);
        if (slot) {
            lease_.prepare(mark_of(*slot), WhenRefused::Fail);
            return Executed::NotYet;
        }
    }
    if (call.plan.way == Way::Script) lease_.expect_any_text();
    lease_.ask(bytes_for(call), waits ? RequestKind::Blocking : call.plan.kind);
    return Executed::NotYet;
}

// WAIT and WAITAOF wait no longer for all nodes than for one.
std::string NodesInTurn::bytes_for(const Call& call) const {
    const CommandView& command = call.command;
    const uint64_t waited_ms = desk_.context.loop.now_ms() - begun_ms_;
    const auto timeout_ms = parse_integer(command[command.size() - 1]);
    std::string bytes;
    if (call.special() != Special::Wait || !timeout_ms || *timeout_ms <= 0 || waited_ms == 0) {
        encode_command(command, bytes);
        return bytes;
    }
    const auto limit_ms = static_cast<uint64_t>(*timeout_ms);
    append_array_header(bytes, command.size());
    for (size_t i = 0; i + 1 < command.size(); ++i)
        append_bulk(bytes, command[i]);
    append_bulk(bytes, std::to_string(limit_ms > waited_ms ? limit_ms - waited_ms : 1));
    return bytes;
}

// False: the client has been answered.
bool NodesInTurn::take_mark(const Call& call) {
    const Lease::Preparation done = lease_.take_preparation();
    is_marked_ = true;
    if (done.error.empty()) return true;
    finish(call, done.has_failed ? done.error
                                 : done.error + " (" + call.spec()->name +
                                       " could not be made to count this session's writes)");
    return false;
}

bool NodesInTurn::take_reply(const Call& call) {
    Lease::Preparation done = lease_.take_preparation();
    lease_.note_reply(!done.error.empty());
    is_marked_ = false;
    const std::string node = asked_.emplace_back(
        lease_.connection() == nullptr ? std::string() : address_of(lease_.node()));
    ids_.emplace_back(id_of(*desk_.context.cluster, lease_.node()));
    lease_.end();
    if (done.reply.empty()) {
        const bool has_run = !done.error.starts_with("UPSTREAMDOWN");
        if (replies_.empty() && !has_run) {
            finish(call, done.error);
        } else {
            finish(call, fmt::format("UPSTREAMLOST {} nodes have answered, node {} {}",
                                     replies_.size(), node,
                                     has_run ? "was lost; may have run in part"
                                             : "was not reached; has run in part"));
        }
        return false;
    }
    if (!done.error.empty()) {
        finish(call, done.error);
        return false;
    }
    replies_.push_back(std::move(done.reply));
    return true;
}

void NodesInTurn::answer(const Call& call) {
    std::vector<std::string_view> replies(replies_.begin(), replies_.end());
    if (replies.empty()) {
        finish(call, "UPSTREAMDOWN who owns which slot is not known yet; not sent");
        return;
    }
    const auto gathered = gather({call.spec()->gather, replies, {}});
    if (!gathered) {
        finish(call, "ERR the nodes' replies do not fit together");
        return;
    }
    std::string reply = gathered->head;
    for (const std::string_view piece : gathered->pieces)
        reply += piece;
    note_script(call);
    finish(call, {});
    if (reply.starts_with('-')) desk_.tally.count_error(call.spec(), reply);
    desk_.answer_as(call.spec(), RequestOutcome::Forwarded, reply);
}

// All nodes have said the same: "$40\r\n", and the script's SHA1.
void NodesInTurn::note_script(const Call& call) {
    constexpr size_t kHead = 5;
    constexpr size_t kSha = 40;
    if (desk_.context.scripts == nullptr || call.spec()->name != "script|load") return;
    if (replies_.front().size() != kHead + kSha + 2) return;
    desk_.context.scripts->note(std::string_view(replies_.front()).substr(kHead, kSha),
                                call.command[2], std::move(ids_));
}

// `error`: empty if the client is answered elsewhere.
void NodesInTurn::finish(const Call& call, std::string_view error) {
    has_begun_ = false;
    lease_.set_blocked(false);
    lease_.end();
    if (!error.empty()) desk_.answer_error(call.spec(), error);
}

}  // namespace nearkey
