#include "nearkey/upstream/suspicion.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/upstream/health.h"
#include "nearkey/upstream/node_connections.h"
#include "nearkey/upstream/node_events.h"

#include <utility>

namespace nearkey {

bool Suspicion::is_unconfirmed() const {
    return is_confirmation_wanted_ &&
           confirmation_wanted_ms_ + context_.options.unready_after_ms < context_.loop.now_ms();
}

bool Suspicion::tick(const Health& health) {
    ask_again();
    const uint64_t limit_ms = context_.options.suspect_after_ms;
    const bool is_silent = limit_ms > 0 && context_.ready > 0 && health.is_silent_for(limit_ms);
    if (!is_silent || is_suspect_ || is_broken(Rule::Suspicion)) return false;
    is_suspect_ = true;
    ++context_.metrics.upstream_suspects_total;
    const uint64_t silent_ms = context_.loop.now_ms() - context_.heard_ms;
    context_.log.warning("upstream_suspect", {{"upstream", redacted(context_.target->url)},
                                              {"silent_ms", static_cast<int64_t>(silent_ms)}});
    context_.is_held_back = context_.target->has_sentinels();
    connections_.for_each([](Connection& connection) {
        const bool is_asked =
            connection.is_ready() && !connection.is_retired() && !connection.tunnel().is_open();
        if (is_asked) connection.probe().suspect();
    });
    return true;
}

void Suspicion::note_ready() {
    if (context_.is_held_back) {
        ask_for_confirmation();
    } else {
        end();
    }
}

void Suspicion::note_lost() {
    if (context_.ready > 0) return;
    is_suspect_ = context_.is_held_back =
        context_.target->has_sentinels() && !is_broken(Rule::Suspicion);
    is_confirmation_wanted_ = false;
}

void Suspicion::note_trustworthy(Connection& connection) {
    note_ready();
    if (!context_.is_held_back) connection.pipeline().let_go();
}

void Suspicion::ask_for_confirmation() {
    if (std::exchange(is_confirmation_wanted_, true)) return;
    confirmation_wanted_ms_ = confirmation_asked_ms_ = context_.loop.now_ms();
    events_.on_confirmation_wanted();
}

// Nobody is relied upon to remember the question: without an answer all is held back.
void Suspicion::ask_again() {
    const uint64_t now_ms = context_.loop.now_ms();
    const uint64_t due_ms = confirmation_asked_ms_ + context_.options.unready_after_ms;
    if (!is_confirmation_wanted_ || due_ms > now_ms) return;
    confirmation_asked_ms_ = now_ms;
    events_.on_confirmation_missing();
}

void Suspicion::confirm() {
    if (is_confirmation_wanted_) end();
}

// Each shared connection that has not answered yet is held back until it has.
void Suspicion::end() {
    context_.is_held_back = is_confirmation_wanted_ = false;
    if (!std::exchange(is_suspect_, false)) return;
    context_.log.info("upstream_trusted", {{"upstream", redacted(context_.target->url)}});
    connections_.for_each([](Connection& connection) {
        if (connection.probe().is_trustworthy()) connection.pipeline().let_go();
    });
}

}  // namespace nearkey
