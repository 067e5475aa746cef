#include "nearkey/upstream/replicas.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/resp/number.h"
#include "nearkey/upstream/cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// So many rounds within the bound: the loss of one or two of them does not matter.
constexpr uint64_t kRoundsPerBound = 8;
constexpr uint64_t kIntervalMinMs = 5;
constexpr uint64_t kIntervalMaxMs = 125;
// Nothing is asked any more so long after the last read.
constexpr uint64_t kWantedForMs = 2000;
// One that was behind is asked again after 1, 2, 4 ... ms.
constexpr uint64_t kPauseMaxMs = 64;
// A replica that does not answer for so long, or two intervals, gets no more.
constexpr uint64_t kSilenceMinMs = 50;
constexpr size_t kRoleReplyMax = size_t{16} << 10;
constexpr size_t kSpareMax = 1024;
constexpr size_t kSpareBytesMax = 1024;
// Older ones answer for a slot that moves as if the keys that have left were gone
// (valkey-io/valkey, "Make cluster replicas return ASK and TRYAGAIN").
constexpr int64_t kVersionMin = 8;
// No node of the cluster has it (Cluster::find).
constexpr uint16_t kNumberOfReplicas = NodeCoherence::kSeedNumber - 1;

std::string question_of(uint16_t slot) {
    std::string question(kInfoReplication);
    append_command(question, {"EXISTS", fmt::format("nearkey:{{{}}}", tag_of(slot))});
    return question;
}

bool is_new_enough(const Value& hello) {
    const std::string_view version = hello.text_of("version");
    const auto major = parse_integer(version.substr(0, version.find('.')));
    return hello.text_of("server") == "valkey" && major && *major >= kVersionMin;
}
}  // namespace

Replicas::Replica::Replica(Loop& loop, Replicas& all)
    : question(kRoleReplyMax, OwnCommand::Info,
               [&all, this](std::string_view reply) { all.note_replica(*this, reply); }),
      again(loop, [&all, this] { all.ask(*this); }) {
}

Replicas::Replicas(const Parts& parts) : parts_(parts), timer_(parts.loop, [this] { tick(); }) {
}

Replicas::~Replicas() {
    stop();
}

// Sessions are gone: nobody waits for what is in flight.
void Replicas::stop() {
    timer_.stop();
    for (auto& [number, primary] : primaries_) {
        if (primary.connection != nullptr) primary.connection->forget(primary);
    }
    primaries_.clear();
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        for (Read& read : replica->reads)
            read.receiver = nullptr;
    }
    replicas_.clear();
}

// --- where a read goes ---

Replicas::Choice Replicas::choose(const Wish& wish) {
    Choice choice;
    const auto found = primaries_.find(wish.primary);
    if (found == primaries_.end() || found->second.replicas.empty()) return choice;
    Primary& primary = found->second;
    want(primary, wish.slot);
    const size_t count = primary.replicas.size();
    for (size_t i = 0; i < count; ++i) {
        const uint16_t number = primary.replicas[(wish.session + i) % count];
        if (wish.only != kNone && wish.only != number) continue;
        Choice next;
        next.hindrance = judge(*replicas_[number], wish, next);
        // Of several reasons the one that is nearest to being over.
        if (choice.hindrance < next.hindrance || next.hindrance == ReplicaHindrance::None) {
            choice = next;
        }
        if (choice.node != nullptr) break;
    }
    return choice;
}

ReplicaHindrance Replicas::judge(Replica& replica, const Wish& wish, Choice& choice) {
    Node& node = *replica.node;
    const uint64_t patience_ms = std::max(2 * interval_ms(), kSilenceMinMs);
    if (!replica.is_fit || !node.health().is_ready || is_silent(replica, patience_ms)) {
        return ReplicaHindrance::Away;
    }
    Connection* const connection =
        node.shared().first_ready(wish.protocol, node.target().url.database);
    if (connection == nullptr || connection->in_flight().is_congested() ||
        connection->pipeline().is_held_back()) {
        return ReplicaHindrance::Away;
    }
    const Proof& proof = replica.proof;
    // The answer came from the server that this connection leads to, if that was there already.
    const bool is_same_server = connection->ready_ms() < proof.asked_ms;
    if (!is_same_server || !is_within_bound(proof.ms, Loop::boot_ms())) {
        return ReplicaHindrance::Unproven;
    }
    if (parts_.own_writes.last(wish.slot) >= proof.ms && !is_broken(Rule::ReplicaOwnWrite)) {
        return ReplicaHindrance::OwnWrite;
    }
    choice.number = replica.number;
    choice.node = &node;
    choice.connection = connection;
    choice.proven_ms = proof.ms;
    return ReplicaHindrance::None;
}

bool Replicas::is_within_bound(uint64_t proven_ms, uint64_t now_ms) const {
    if (proven_ms == 0) return false;
    return is_broken(Rule::ReplicaBound) ||
           now_ms < proven_ms + parts_.cluster_options.replica_lag_max_ms;
}

bool Replicas::is_silent(const Replica& replica, uint64_t patience_ms) const {
    const uint64_t since_ms = replica.waiting_since_ms;
    return since_ms != 0 && since_ms + patience_ms < parts_.loop.now_ms();
}

void Replicas::send(const Choice& choice, const Request& request, uint16_t slot) {
    Replica& replica = *replicas_[choice.number];
    if (spare_.empty()) spare_.emplace_back(*this);
    replica.reads.splice(replica.reads.end(), spare_, spare_.begin());
    Read& read = replica.reads.back();
    const uint64_t now_ms = parts_.loop.now_ms();
    const uint64_t timeout_ms = parts_.options.request_timeout_ms;
    read.at = &replica;
    read.self = std::prev(replica.reads.end());
    read.connection = choice.connection;
    read.receiver = request.receiver;
    read.ticket = request.ticket;
    read.slot = slot;
    read.has_begun = false;
    read.sent_ms = now_ms;
    read.deadline_ms = now_ms + timeout_ms - std::min(request.waited_ms, timeout_ms);
    read.timing = request.timing;
    read.bytes = request.bytes;
    ++parts_.metrics.cluster_replica_reads_total;
    Request sent = request;
    sent.receiver = &read;
    sent.ticket = 0;
    choice.connection->send(sent);
}

// --- a read that a replica has ---

void Replicas::Read::on_reply_bytes(uint32_t, std::string_view piece) {
    has_begun = true;
    if (receiver != nullptr) receiver->on_reply_bytes(ticket, piece);
}

// The receiver is told last: it may send more, for which this is taken.
void Replicas::Read::on_reply_end(uint32_t) {
    ReplyReceiver* const to = receiver;
    const uint32_t number = ticket;
    all.release(*this);
    if (to != nullptr) to->on_reply_end(number);
}

// Its connection is lost: it is not sent there again.
bool Replicas::Read::on_reply_void(uint32_t) {
    if (receiver != nullptr && receiver->on_reply_void(ticket)) {
        all.move(*this);
    } else {
        all.release(*this);
    }
    return false;
}

void Replicas::Read::on_request_failed(uint32_t, std::string_view error) {
    const bool is_over = deadline_ms <= all.parts_.loop.now_ms();
    if (receiver == nullptr || !is_over) {
        static_cast<void>(on_reply_void(0));
        return;
    }
    ReplyReceiver* const to = receiver;
    const uint32_t number = ticket;
    all.release(*this);
    to->on_request_failed(number, error);
}

void Replicas::Read::on_slow_request(uint32_t, const RequestTiming& times, SlowEnd end) {
    if (receiver != nullptr) receiver->on_slow_request(ticket, times, end);
}

void Replicas::on_demoted() {
    parts_.cluster.doubt();
}

int Replicas::slot_of_command(std::string_view bytes) const {
    return parts_.cluster.slot_of_command(bytes);
}

// The replica has refused it, for a slot that moves, or for a reason of its own.
void Replicas::on_redirect(Connection&, const Redirect& redirect, UnsentRequest request) {
    auto& read = static_cast<Read&>(*request.request.receiver);
    if (redirect.kind == Redirect::Kind::Moved) parts_.cluster.doubt();
    if (read.receiver == nullptr) {
        release(read);
    } else {
        move(read);
    }
}

// REQUIRES: no connection will tell it anything any more.
void Replicas::move(Read& read) {
    const PendingRequest entry{.receiver = read.receiver,
                               .deadline_ms = read.deadline_ms,
                               .ticket = read.ticket,
                               .retained = 0,
                               .replies = 1,
                               .kind = RequestKind::Read,
                               .is_retry = false,
                               .protocol = read.connection->protocol(),
                               .timing = read.timing};
    const uint16_t slot = read.slot;
    UnsentRequest request{read.bytes, entry, read.deadline_ms, true};
    release(read);
    ++parts_.metrics.cluster_reads_refused_total;
    parts_.send_to_owner(std::move(request), slot);
}

void Replicas::release(Read& read) {
    NEARKEY_CHECK(read.at != nullptr);
    std::list<Read>& reads = std::exchange(read.at, nullptr)->reads;
    read.receiver = nullptr;
    if (read.bytes.capacity() > kSpareBytesMax) read.bytes = std::string();
    spare_.splice(spare_.begin(), reads, read.self);
    // Never the first: it may be in the middle of a call.
    if (spare_.size() > kSpareMax) spare_.pop_back();
}

void Replicas::forget(const ReplyReceiver& receiver) {
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        for (Read& read : replica->reads)
            if (read.receiver == &receiver) read.receiver = nullptr;
    }
}

// Those whose reply has not begun go to the owners of their slots, as long as these have time to
// answer: the replica is frozen, or gone.
void Replicas::take_back_late(Replica& replica) {
    const uint64_t patience_ms =
        std::min(std::max(parts_.cluster_options.replica_lag_max_ms, kSilenceMinMs),
                 parts_.options.request_timeout_ms / 2);
    if (!is_silent(replica, patience_ms)) return;
    const uint64_t now_ms = parts_.loop.now_ms();
    std::vector<Read*> late;
    for (Read& read : replica.reads) {
        const bool is_late = !read.has_begun && read.sent_ms + patience_ms < now_ms;
        if (is_late && read.receiver != nullptr) late.push_back(&read);
    }
    for (Read* const read : late) {
        // One that is sent on may fail at once, and end its client with all that it has here.
        if (read->receiver == nullptr) continue;
        read->connection->forget(*read);
        move(*read);
    }
}

// --- how far replicas are known to be ---

uint64_t Replicas::interval_ms() const {
    return std::clamp(parts_.cluster_options.replica_lag_max_ms / kRoundsPerBound, kIntervalMinMs,
                      kIntervalMaxMs);
}

void Replicas::want(Primary& primary, uint16_t slot) {
    const uint64_t now_ms = parts_.loop.now_ms();
    const bool is_new = primary.wanted_ms == 0 || primary.wanted_ms + kWantedForMs <= now_ms;
    primary.wanted_ms = now_ms;
    primary.slot = slot;
    if (!timer_.is_active()) timer_.start_repeating(interval_ms());
    if (is_new) ask(primary);
}

void Replicas::tick() {
    const uint64_t now_ms = parts_.loop.now_ms();
    bool is_wanted = false;
    for (auto& [number, primary] : primaries_) {
        if (primary.wanted_ms == 0 || primary.wanted_ms + kWantedForMs <= now_ms) continue;
        is_wanted = true;
        ask(primary);
    }
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        take_back_late(*replica);
        if (replica->reads.empty()) continue;
        is_wanted = true;
        ask(*replica);
    }
    if (!is_wanted) timer_.stop();
}

void Replicas::ask(Primary& primary) {
    if (primary.connection != nullptr) return;
    Node* const node = parts_.cluster.find(primary.number);
    if (node == nullptr || !node->shared().primary().is_ready()) return;
    primary.connection = &node->shared().primary();
    primary.asked_ms = Loop::boot_ms();
    primary.connection->send({question_of(primary.slot), &primary, 0, RequestKind::Own, 2});
}

void Replicas::Primary::on_whole_reply(uint32_t ticket, const std::string& reply) {
    if (ticket == 0) {
        if (has_answered(*connection, OwnCommand::Info, reply)) info = reply;
        return;
    }
    connection = nullptr;
    // Its own word, behind all that it has told of.
    all.note_primary(*this, reply.starts_with(':'));
}

void Replicas::note_primary(Primary& primary, bool owns) {
    const auto state = read_replication(primary.info);
    if (!owns || !state || !state->is_primary) return;
    const bool is_late = is_broken(Rule::ReplicaAsked);
    primary.marks.add(is_late ? Loop::boot_ms() : primary.asked_ms, *state);
    for (const uint16_t number : primary.replicas) {
        replicas_[number]->pause_ms = 1;
        ask(*replicas_[number]);
    }
}

void Replicas::ask(Replica& replica) {
    Connection& connection = replica.node->shared().primary();
    if (replica.question.is_open() || !connection.is_ready()) return;
    replica.asked_ms = parts_.loop.now_ms();
    if (replica.waiting_since_ms == 0) replica.waiting_since_ms = replica.asked_ms;
    replica.question.ask(connection, kInfoReplication, RequestKind::Own);
}

void Replicas::note_replica(Replica& replica, std::string_view reply) {
    replica.waiting_since_ms = 0;
    const auto state = read_replication(reply);
    const auto primary = primaries_.find(replica.primary);
    if (!state || primary == primaries_.end()) return;
    note_fitness(replica);
    const uint64_t proven_ms = primary->second.marks.proven_ms(*state);
    if (proven_ms > replica.proof.ms) replica.proof = {proven_ms, replica.asked_ms};
    // A promoted one has changes that no primary knows of as its own.
    if (state->is_primary) replica.proof = {};
    if (proven_ms >= primary->second.marks.last_ms() || replica.pause_ms > kPauseMaxMs) return;
    replica.again.start_once(std::exchange(replica.pause_ms, replica.pause_ms * 2));
}

void Replicas::note_fitness(Replica& replica) {
    replica.is_fit = is_new_enough(replica.node->catalog().hello());
    if (replica.is_fit || !parts_.is_first || std::exchange(is_age_told_, true)) return;
    parts_.log.warning("cluster_replica_too_old",
                       {{"node", to_text(replica.endpoint)},
                        {"what",
                         "it is not read from: before Valkey 8 a replica answers for a slot that "
                         "moves as if the keys that have left were gone"}});
}

// --- which there are ---

void Replicas::apply(const SlotMap& map, const std::vector<uint16_t>& numbers, Node& seed) {
    std::unordered_map<std::string_view, uint16_t> known;
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        replica->is_listed = false;
        known[replica->id] = replica->number;
    }
    for (auto& [number, primary] : primaries_)
        primary.replicas.clear();
    for (const SlotMap::Server& server : map.servers()) {
        if (!server.is_replica || server.endpoint.port == 0 || server.slots > 0) continue;
        const uint16_t primary = numbers[server.primary];
        if (primary == kNone) continue;
        const auto same = known.find(server.id);
        const bool is_known =
            same != known.end() && replicas_[same->second]->endpoint == server.endpoint;
        const uint16_t number = is_known ? same->second : add(server, seed);
        if (number == kNone) continue;
        Replica& replica = *replicas_[number];
        if (std::exchange(replica.primary, primary) != primary) replica.proof = {};
        replica.is_listed = true;
        primary_of(primary).replicas.push_back(number);
    }
    // Outside of any connection's callbacks. What they had goes to the owners.
    for (auto& replica : replicas_)
        if (replica != nullptr && !replica->is_listed) std::exchange(replica, nullptr).reset();
    for (auto entry = primaries_.begin(); entry != primaries_.end();) {
        Primary& primary = entry->second;
        if (!primary.replicas.empty()) {
            ++entry;
            continue;
        }
        if (primary.connection != nullptr) primary.connection->forget(primary);
        entry = primaries_.erase(entry);
    }
}

Replicas::Primary& Replicas::primary_of(uint16_t number) {
    return primaries_.try_emplace(number, *this, number).first->second;
}

// Also for one whose address is another now.
uint16_t Replicas::add(const SlotMap::Server& server, Node& seed) {
    const auto free = std::find(replicas_.begin(), replicas_.end(), nullptr);
    const auto count = static_cast<uint64_t>(
        std::count_if(replicas_.begin(), replicas_.end(),
                      [](const auto& each) { return each != nullptr && each->is_listed; }));
    if (count >= parts_.cluster_options.nodes_max) {
        ++parts_.metrics.cluster_nodes_max_total;
        if (!std::exchange(is_full_, true)) {
            parts_.log.warning("cluster_nodes_max",
                               {{"node", to_text(server.endpoint)},
                                {"limit", static_cast<int64_t>(parts_.cluster_options.nodes_max)},
                                {"what", "further replicas are not read from"}});
        }
        return kNone;
    }
    auto target = parts_.make_target(seed.target(), server.endpoint);
    if (target == nullptr) return kNone;
    const auto number = static_cast<uint16_t>(free - replicas_.begin());
    auto replica = std::make_unique<Replica>(parts_.loop, *this);
    replica->id = server.id;
    replica->endpoint = server.endpoint;
    replica->number = number;
    replica->primary = kNone;
    replica->node = std::make_unique<Node>(Node::Parts{.loop = parts_.loop,
                                                       .metrics = parts_.metrics,
                                                       .log = parts_.log,
                                                       .scratch = parts_.scratch,
                                                       .events = *this,
                                                       .cache = nullptr,
                                                       .backoff_seed = number,
                                                       .is_first = parts_.is_first,
                                                       .redirects = this,
                                                       .seed_catalog = &seed.catalog(),
                                                       .number = kNumberOfReplicas,
                                                       .reads_replica = true},
                                           parts_.options, std::move(target));
    replica->node->start();
    if (free == replicas_.end()) {
        replicas_.push_back(std::move(replica));
    } else {
        *free = std::move(replica);
    }
    return number;
}

void Replicas::set_access(const UpstreamTarget& fresh) {
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        if (const auto target = parts_.make_target(fresh, replica->endpoint))
            replica->node->set_access(*target);
    }
}

void Replicas::apply_options() {
    if (timer_.is_active()) timer_.start_repeating(interval_ms());
}

void Replicas::set_gauges() const {
    const uint64_t now_ms = Loop::boot_ms();
    uint64_t known = 0;
    uint64_t proven = 0;
    for (const auto& replica : replicas_) {
        if (replica == nullptr) continue;
        ++known;
        proven += is_within_bound(replica->proof.ms, now_ms) ? 1 : 0;
    }
    parts_.metrics.cluster_replicas = known;
    parts_.metrics.cluster_replicas_proven = proven;
}

}  // namespace nearkey
