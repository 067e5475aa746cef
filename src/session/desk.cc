#include "nearkey/session/desk.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/dispatch/placement.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/cluster_face.h"
#include "nearkey/session/refusals.h"

#include <string>
#include <utility>

namespace nearkey {

Desk::Desk(SessionContext& shared, const ClientTerms& own_terms, uint64_t number,
           DeskEvents& events, ReplyReceiver& receiver)
    : context(shared),
      terms(own_terms),
      is_placed(shared.cluster != nullptr || own_terms.face == Face::Cluster),
      id(number),
      client{.database = own_terms.database,
             .cache_use = own_terms.cache_use,
             .shares_replies = own_terms.shared_memory},
      pauses(shared.loop, events),
      ledger(shared.ledgers, client, *this),
      tally(shared.metrics.commands),
      events_(events),
      receiver_(receiver),
      flush_hook_(shared.loop, events) {
}

void Desk::stop_input() {
    is_input_over_ = true;
    is_input_stopped_ = true;
    events_.update_reading();
}

void Desk::close_for_output() {
    ++context.metrics.clients_closed_output_total;
    warn("client_closed", "limits.output_per_client_max");
    end();
}

void Desk::cut() {
    ++context.metrics.clients_closed_down_total;
    is_cut_ = true;
    stop_input();
    flush_soon();
}

// The answer has a ticket in any case: it is the command's number in the session.
void Desk::answer_as(const CommandSpec* spec, RequestOutcome outcome, std::string_view reply) {
    tally.count_answered(spec);
    const CommandFamily family = spec == nullptr ? CommandFamily::Other : spec->family;
    const uint8_t series = RequestTiming::series_of(family, outcome);
    Latency& latency = context.node.latency();
    if (is_retried) {
        latency.note_end({.start_us = taken_up_us, .series = series}, outcome);
    } else {
        latency.note_answer(series);
    }
    if (output.is_lost()) return;
    const uint32_t ticket = replies.open(1);
    if (!replies.is_first(ticket)) {
        replies.hold_answer(ticket, reply);
        return;
    }
    replies.close_first();
    output.append(reply);
    output.commit();
    flush_soon();
}

void Desk::answer_error(const CommandSpec* spec, std::string_view text) {
    if (is_cut_by(text, spec != nullptr && spec->is_blocking)) {
        const uint32_t ticket = replies.open(1);
        replies.hold_cut(ticket);
        if (replies.is_first(ticket)) events_.settle();
        return;
    }
    std::string reply;
    append_error(reply, text);
    answer(spec, reply);
}

void Desk::warn(std::string_view event, std::string_view what) {
    context.log.warning(event, {{"what", what},
                                {"session", static_cast<int64_t>(id)},
                                {"request", int64_t{replies.next()}},
                                {"tag", tag()}});
}

Executed Desk::wait_until_idle() {
    NEARKEY_CHECK(owed() > 0);
    pauses.pause(PauseReason::kUntilIdle, nullptr);
    return Executed::NotYet;
}

std::optional<Executed> Desk::place(const Call& call, Node*& node) {
    using Where = Placement::Where;
    const bool is_of_face = terms.face == Face::Cluster && is_about_face(call);
    if (is_of_face && is_answered_by_face(call)) return answer_as_cluster(call);
    if (context.cluster == nullptr) {
        node = &context.node;
        return std::nullopt;
    }
    Cluster& cluster = *context.cluster;
    const Placement placement =
        is_of_face ? place_in_face(call)
                   : nearkey::place(call.spec(), call.command, context.ledgers.keys);
    // Of a SCAN that comes here, any node says what is wrong with it.
    const bool is_wrong_scan =
        placement.where == Where::EveryNode && call.spec()->spread == Spread::Scan;
    if (placement.where == Where::Anywhere || is_wrong_scan) {
        node = &cluster.home();
        return std::nullopt;
    }
    if (placement.where != Where::Slot) {
        answer_error(call.spec(), cluster_refusal_of(call, true, context.ledgers.keys));
        return Executed::Yes;
    }
    if (!is_in_order(placement.slot)) return wait_for_order();
    node = &cluster.owner(placement.slot);
    return std::nullopt;
}

Executed Desk::answer_as_cluster(const Call& call) {
    answer(call.spec(), answer_of_face(call, terms.announced, client.protocol));
    return Executed::Yes;
}

bool Desk::is_settled(uint16_t slot) {
    const Cluster& cluster = *context.cluster;
    if (owed() == 0) {
        seen_version_ = cluster.version();
        owed_by_replicas_ = 0;
    }
    return owed() == 0 || is_broken(Rule::Gate) ||
           (cluster.changed(slot) <= seen_version_ && !cluster.sent_on().has_of(receiver_));
}

void Desk::note_shown_reply(const Call& call, const SendWay& way) {
    ledger.note_shown();
    const uint32_t ticket = replies.next();
    ledger.begin(call.plan, call.command, ticket, way);
    ledger.end(ticket, {});
}

std::string_view Desk::canonical(const CommandView& command) {
    if (command.is_canonical()) return command.raw();
    context.encoded.clear();
    encode_command(command, context.encoded);
    return context.encoded;
}

// A blocking command waits because it is told to: that is no latency, and it is not counted.
RequestTiming Desk::timing(const Call& call, RequestKind kind) {
    const CommandSpec* const spec = call.spec();
    RequestTiming timing{.command = &tally.row(spec), .start_us = taken_up_us};
    if (kind == RequestKind::Blocking) return timing;
    const CommandFamily family = spec == nullptr ? CommandFamily::Other : spec->family;
    timing.series = RequestTiming::series_of(
        family, call.plan.may_be_stored() ? RequestOutcome::Miss : RequestOutcome::Forwarded);
    if (spec == nullptr) return timing;
    if (spec->first_key == 0 || spec->first_key >= call.command.size()) return timing;
    const std::string_view key = call.command[spec->first_key];
    HotKeys* const hot_keys = context.hot_keys;
    if (spec->is_readonly && hot_keys != nullptr && hot_keys->is_due(HotKeys::Outcome::Miss)) {
        hot_keys->note(key, HotKeys::Outcome::Miss, context.loop.now_ms());
    }
    if (context.slow_log != nullptr) timing.key_hash = context.slow_log->key_hash().hash(key);
    return timing;
}

uint32_t Desk::open_parts(const Call& call, PartPlan plan) {
    count_forwarded(call.spec());
    client.has_written |= call.plan.kind != RequestKind::Read;
    ++context.metrics.cluster_commands_split_total;
    context.metrics.cluster_parts_total += plan.node_of.size();
    plan.bytes_max = terms.limits.output_per_client_max / 2;
    plan.timing = timing(call, call.plan.kind);
    plan.timing.sent_us = context.node.latency().turn_us();
    return replies.open_group(std::move(plan));
}

void Desk::send_part(const Call& part, uint32_t ticket, const SendWay& way,
                     std::string_view bytes) {
    ledger.begin(part.plan, part.command, ticket, way);
    way.connection.send({bytes, &receiver_, ticket, part.plan.kind, 1, ledger.awaited_ms(), {}});
}

void Desk::send(const Call& call, RequestKind kind, const SendWay& way) {
    count_forwarded(call.spec());
    client.has_written |= kind != RequestKind::Read;
    const uint32_t ticket = replies.open(1);
    ledger.begin(call.plan, call.command, ticket, way);
    way.connection.send({canonical(call.command), &receiver_, ticket, kind, 1, ledger.awaited_ms(),
                         timing(call, kind)});
}

}  // namespace nearkey
