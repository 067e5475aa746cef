#include "nearkey/session/lease_route.h"

#include <fmt/format.h>

#include <utility>

namespace nearkey {

namespace {
bool is_refused_for_now(std::string_view error) {
    return error.starts_with("BUSY ") || error.starts_with("LOADING ");
}
}  // namespace

Executed LeaseRoute::forward(const Call& call, RequestKind kind) {
    // A script before it that goes on elsewhere waits for what is in flight.
    const bool is_blocking = kind == RequestKind::Blocking && !transaction_.is_open();
    if (is_blocking && desk_.context.cluster != nullptr && desk_.owed() > 0) {
        return desk_.wait_until_idle();
    }
    if (const auto executed = lease_.take(call)) return *executed;
    if (kind == RequestKind::Blocking) {
        const bool waits_on = may_wait_on(call);
        lease_.set_blocked(true);
        if (waits_on) {
            kept_.blocked->send(call);
            return Executed::Yes;
        }
    }
    if (may_follow(call)) {
        kept_.followed->send(call, lease_.behind(kind));
    } else {
        lease_.send(call, lease_.behind(kind));
    }
    return Executed::Yes;
}

// True if it goes on at another node of a cluster once this one does not run it.
bool LeaseRoute::may_follow(const Call& call) {
    if (desk_.context.cluster == nullptr || transaction_.is_open()) return false;
    if (!FollowedCommands::takes(call)) return false;
    if (kept_.followed == nullptr) {
        kept_.followed = std::make_unique<FollowedCommands>(desk_, lease_);
    }
    return true;
}

// True if it may wait on at another server once this one is no primary any more.
bool LeaseRoute::may_wait_on(const Call& call) {
    if (call.spec() == nullptr || desk_.owed() > 0 || transaction_.is_open()) return false;
    if (call.spec()->special == Special::Wait || call.spec()->is_module) return false;
    if (kept_.blocked == nullptr) {
        kept_.blocked = std::make_unique<BlockedWait>(desk_, lease_, transaction_);
    }
    return kept_.blocked->keep(call);
}

Executed LeaseRoute::forward_script(const Call& call) {
    const Executed executed = forward(call, call.plan.kind);
    if (lease_) lease_.expect_any_text();
    return executed;
}

Executed LeaseRoute::forward_unproven(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (const auto executed = lease_.take(call)) return *executed;
    lease_.doubt_state();
    desk_.pauses.pause(PauseReason::kUntilIdle, nullptr);
    lease_.send(call, RequestKind::Write);
    return Executed::Yes;
}

// WAIT counts the writes of its own connection (replication.c, woff), and this session's went over
// others. A command that is propagated moves the connection's offset past all of them.
Executed LeaseRoute::forward_wait(const Call& call) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (const auto executed = lease_.take(call)) return *executed;
    const bool is_asked = lease_.preparation().state != Lease::Preparation::State::None;
    if (call.plan.before == Before::Mark && !is_asked) {
        lease_.prepare(kMark, WhenRefused::Fail);
        return Executed::NotYet;
    }
    const Lease::Preparation done = lease_.take_preparation();
    if (!done.error.empty()) {
        // WAIT itself would be refused with these words.
        const bool is_own = done.has_failed || is_refused_for_now(done.error);
        desk_.answer_error(
            call.spec(),
            fmt::format("{}{}", done.error,
                        is_own ? "" : " (WAIT could not be made to count this session's writes)"));
        if (!transaction_.is_open()) lease_.end();
        return Executed::Yes;
    }
    return forward(call, call.plan.kind);
}

Executed LeaseRoute::forward_apart(const Call& call, SharedRoute& shared, Input& input) {
    if (!lease_.is_there_at_once()) return shared.forward(call);
    if (const auto executed = lease_.take(call)) return *executed;
    return call.plan.why == Why::Large ? send_large(call, input)
                                       : forward(call, RequestKind::Write);
}

// A large command leaves in the buffer in which it came.
Executed LeaseRoute::send_large(const Call& call, Input& input) {
    if (!input.can_give_away(call.command)) return forward(call, RequestKind::Write);
    desk_.count_forwarded(call.spec());
    desk_.client.has_written = true;
    const uint32_t ticket = desk_.replies.open(1);
    const RequestKind kind = lease_.behind(RequestKind::Write);
    // Both look at the command before its bytes are the connection's.
    desk_.ledger.begin(call.plan, call.command, ticket, lease_.way());
    const RequestTiming timing = desk_.timing(call, kind);
    lease_->pipeline().send_owned({{}, &desk_.receiver(), ticket, kind, 1, 0, timing},
                                  input.give_away(call.command.raw().size()));
    return Executed::Yes;
}

}  // namespace nearkey
