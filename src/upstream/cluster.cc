#include "nearkey/upstream/cluster.h"

#include "nearkey/base/probes.h"
#include "nearkey/dispatch/placement.h"
#include "nearkey/upstream/cluster_facts.h"
#include "nearkey/upstream/error_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// Between two questions: while nothing is known, while something is in doubt, and otherwise.
constexpr uint64_t kAskFirstMs = 20;
constexpr uint64_t kAskDoubtedMs = 100;
constexpr uint64_t kAskUnwellMs = 1000;
constexpr uint64_t kAnswerPatienceMs = 500;
// Where no node that was known is there for so many intervals, another cluster is believed.
constexpr uint64_t kIntervalsOfAbsence = 3;

bool may_answer(Node& node) {
    return node.health().is_ready && node.shared().primary().is_ready();
}

void deliver(const UnsentRequest& request, std::string_view words) {
    ReplyReceiver& receiver = *request.request.receiver;
    request.request.count_error(words);
    receiver.on_reply_bytes(request.request.ticket, words);
    receiver.on_reply_end(request.request.ticket);
}
}  // namespace

Cluster::Cluster(const Parts& parts)
    : parts_(parts),
      addresses_(parts.cluster_options.addresses),
      seed_choice_(parts.loop, parts.log, parts.make_target),
      question_(kClusterSlotsMax, OwnCommand::Slots,
                [this](std::string_view reply) {
                    update_ = std::make_unique<MapUpdate>(std::string(reply), asked_.host);
                    update_timer_.start_once(0);
                }),
      ask_timer_(parts.loop, [this] { ask(); }),
      update_timer_(parts.loop, [this] { update(); }),
      random_(static_cast<uint32_t>(parts.seed)),
      coherence_(*this, parts.loop, parts.cache),
      sent_on_([this](uint16_t node, const UnsentRequest& request,
                      bool is_asking) { send_on(node, request, is_asking); },
               parts.metrics),
      delayed_(parts.loop, parts.metrics, [this](UnsentRequest request) {
          const int slot = SentOn::slot_of(request);
          const uint16_t number = slot < 0 ? kNobody : owners_[static_cast<size_t>(slot)];
          sent_on_.send(std::move(request), number, false);
      }) {
    owners_.fill(kNobody);
    // Its table takes milliseconds, once: not in the turn that applies the first map.
    static_cast<void>(tag_of(0));
    if (parts.own_writes == nullptr) return;
    const auto send_to_owner = [this](UnsentRequest request, uint16_t slot) {
        sent_on_.take(request, slot);
        sent_on_.send(std::move(request), owners_[slot], false);
    };
    replicas = std::make_unique<Replicas>(Replicas::Parts{.loop = parts.loop,
                                                          .metrics = parts.metrics,
                                                          .log = parts.log,
                                                          .scratch = parts.scratch,
                                                          .options = parts.options,
                                                          .cluster_options = parts.cluster_options,
                                                          .make_target = parts.make_target,
                                                          .own_writes = *parts.own_writes,
                                                          .cluster = *this,
                                                          .send_to_owner = send_to_owner,
                                                          .is_first = parts.is_first});
}

void Cluster::start(Node& seed) {
    seed_ = &seed;
    seed_choice_.start(seed);
    ask_timer_.start_once(kAskFirstMs);
}

void Cluster::stop() {
    ask_timer_.stop();
    update_timer_.stop();
    update_.reset();
    delayed_.stop();
    question_.drop();
    if (replicas != nullptr) replicas->stop();
    numbers_.clear();
    unnamed_ = 0;
    owners_.fill(kNobody);
    // Proofs that end with their nodes ask no node any more.
    const std::vector<std::unique_ptr<Member>> ended = std::exchange(members_, {});
}

void Cluster::apply_options() {
    addresses_ = AddressMap(parts_.cluster_options.addresses);
    if (replicas != nullptr) replicas->apply_options();
    doubt();
}

void Cluster::set_access(const UpstreamTarget& fresh) {
    for (const auto& member : members_) {
        if (member == nullptr) continue;
        if (const auto target = parts_.make_target(fresh, member->endpoint))
            member->node->set_access(*target);
    }
    if (replicas != nullptr) replicas->set_access(fresh);
}

// --- the map ---

void Cluster::doubt() {
    is_doubted_ = true;
    if (question_.is_open() || update_ != nullptr) return;  // It is asked again behind that.
    const uint64_t due_ms = asked_.ms + kAskDoubtedMs;
    const uint64_t now_ms = parts_.loop.now_ms();
    ask_timer_.start_once(due_ms > now_ms ? due_ms - now_ms : 0);
}

// With jitter: the loops of many hosts do not ask together.
void Cluster::schedule() {
    const bool is_unwell =
        !seed_->shared().primary().is_ready() ||
        std::any_of(members_.begin(), members_.end(), [](const auto& member) {
            return member != nullptr && member->slots > 0 && !member->node->health().is_ready;
        });
    const uint64_t interval_ms = !knows_slots_ && asked_.ms == 0      ? kAskFirstMs
                                 : is_doubted_ || question_.is_open() ? kAskDoubtedMs
                                 : is_unwell || !knows_slots_
                                     ? kAskUnwellMs
                                     : parts_.cluster_options.refresh_interval_ms;
    constexpr uint64_t kTenths = 10;
    const uint64_t tenths = 8 + random_() % 5;
    ask_timer_.start_once(std::max<uint64_t>(interval_ms * tenths / kTenths, 1));
}

void Cluster::ask() {
    absence_.note(serves(), parts_.loop.now_ms());
    if (update_ == nullptr) drop_unlisted();
    seed_choice_.watch(serving_of(*this));
    if (question_.is_open() && asked_.ms + kAnswerPatienceMs <= parts_.loop.now_ms()) {
        // It may be frozen: another one is asked.
        question_.drop();
        is_doubted_ = asked_.is_seed_mute = true;
    }
    if (question_.is_open() || update_ != nullptr) return schedule();
    if (Node* const asked = pick_asked()) {
        Connection& connection = asked->shared().primary();
        is_doubted_ = false;
        asked_.ms = parts_.loop.now_ms();
        asked_.version = version_;
        asked_.host = connection.host();
        asked_.endpoint = asked->target().url.endpoint();
        question_.ask(connection, kClusterSlots, RequestKind::Read);
    }
    schedule();
}

// A node that a MOVED has named knows of it; a dead one says nothing.
Node* Cluster::pick_asked() {
    const Endpoint disbelieved = std::exchange(asked_.disbelieved, {});
    const auto may_ask = [&](Node& node) {
        return may_answer(node) && node.target().url.endpoint() != disbelieved;
    };
    const uint16_t hint = std::exchange(hint_, kNobody);
    if (hint != kNobody && members_[hint] != nullptr && may_ask(*members_[hint]->node))
        return members_[hint]->node.get();
    const bool is_seed_ready = seed_->shared().primary().is_ready();
    const bool is_seed_fit =
        !std::exchange(asked_.is_seed_mute, false) && seed_->target().url.endpoint() != disbelieved;
    if (is_seed_ready && is_seed_fit) return seed_;
    for (size_t i = 0; i < members_.size(); ++i) {
        const auto& member = members_[next_asked_++ % members_.size()];
        if (member != nullptr && may_ask(*member->node)) return member->node.get();
    }
    return is_seed_ready ? seed_ : nullptr;
}

void Cluster::update() {
    using Stage = MapUpdate::Stage;
    switch (update_->stage()) {
        case Stage::Reading:
            update_->read();
            if (update_->stage() == Stage::Refused) refuse(update_->refusal());
            if (update_->stage() == Stage::Members) begin_update();
            break;
        case Stage::Members:
            update_->find_members(addresses_, [this](const SlotMap::Server& server) {
                const auto known = numbers_.find(server.id);
                const bool is_there =
                    known != numbers_.end() && members_[known->second]->endpoint == server.endpoint;
                return MapUpdate::Found{member_at(server.id, server.endpoint), !is_there};
            });
            break;
        case Stage::Slots:
            compare_slots();
            break;
        case Stage::Done:
            map_ = update_->take_map();
            take_along();
            if (replicas != nullptr) replicas->apply(map_, update_->numbers(), *seed_);
            if (!std::exchange(knows_slots_, true)) {
                parts_.log.info("cluster", {{"nodes", static_cast<int64_t>(map_.servers().size())},
                                            {"slots", static_cast<int64_t>(map_.served())}});
            }
            parts_.events.on_serving_changed();
            [[fallthrough]];
        case Stage::Refused:
            update_.reset();
            is_doubted_ ? doubt() : schedule();
            return;
    }
    update_timer_.start_once(0);
}

void Cluster::refuse(const std::string& reason) {
    ++parts_.metrics.cluster_maps_refused_total;
    if (std::exchange(refusal_, reason) == reason) return;
    parts_.log.warning("cluster_map_refused", {{"from", asked_.host}, {"reason", reason}});
}

// An address of ours may lead to another cluster by now. That one is believed where none of ours
// has been there for long: it stands in their place.
bool Cluster::may_believe(const SlotMap& map) {
    if (!knows_slots_ || map.has_server_of(map_)) return true;
    const uint64_t patience_ms = kIntervalsOfAbsence * parts_.cluster_options.refresh_interval_ms;
    absence_.note(serves(), parts_.loop.now_ms());
    if (!absence_.lasts(patience_ms, parts_.loop.now_ms())) {
        refuse("it is another cluster: none of its nodes was known");
        seed_choice_.turn(serving_of(*this));  // Nothing of ours is to be asked there.
        return false;
    }
    parts_.log.warning("cluster_replaced",
                       {{"from", asked_.host},
                        {"what", "no node that was known is there any more; another cluster is"}});
    return true;
}

void Cluster::begin_update() {
    if (!may_believe(update_->map())) return update_->refuse();
    ++parts_.metrics.cluster_maps_total;
    refusal_.clear();
    for (const auto& member : members_)
        if (member != nullptr) member->is_listed = false;
}

void Cluster::compare_slots() {
    // Whoever was owed nothing between two pieces knows the owners of then.
    ++version_;
    bool may_confirm = false;
    const auto look_at = [&](Node& node) {
        may_confirm |= may_answer(node) && !asked_.is_of(node.target().url.endpoint());
    };
    look_at(*seed_);
    for_each(look_at);
    std::vector<uint16_t> moved;
    update_->compare_slots([&](uint16_t slot, uint16_t number, const SlotMap::Server* server) {
        if (number == owners_[slot]) return;
        // A server has said otherwise since.
        if (changed_[slot] > asked_.version) return;
        // A node that was replaced while it was frozen, or is cut off, still says that it owns what
        // is another's now: another one must say so, too, or nobody else be there.
        const bool is_own_word =
            server != nullptr && owners_[slot] != kNobody && asked_.is_of(server->endpoint);
        if (is_own_word && may_confirm) {
            asked_.disbelieved = asked_.endpoint;
            is_doubted_ = true;
            return;
        }
        set_owner(slot, number);
        moved.push_back(slot);
    });
    if (moved.empty()) return;
    if (knows_slots_) {
        coherence_.void_slots(moved);
        parts_.metrics.cluster_slots_moved_total += moved.size();
    }
    note_owners();
}

void Cluster::note_owners() {
    std::vector<Node*> nodes;
    for (const auto& member : members_)
        nodes.push_back(member == nullptr ? nullptr : member->node.get());
    coherence_.choose_proofs(owners_, nodes);
    std::erase_if(nodes, [this](Node* node) {
        return node == nullptr || members_[node->coherence().number()]->slots == 0;
    });
    primaries.set(std::move(nodes));
}

// --- members ---

// A node is known by its id; one that has moved to another address is dialled there.
uint16_t Cluster::member_at(const std::string& id, const Endpoint& endpoint) {
    const auto known = id.empty() ? numbers_.end() : numbers_.find(id);
    uint16_t number = known != numbers_.end() ? known->second : kNobody;
    if (number == kNobody && unnamed_ > 0) {
        number = find_member(endpoint);
        if (number != kNobody && !members_[number]->id.empty()) number = kNobody;
    }
    if (number == kNobody) return add_member(id, endpoint);
    Member& member = *members_[number];
    member.is_listed = true;
    if (member.id.empty() && !id.empty()) {
        member.id = id;
        numbers_[id] = number;
        --unnamed_;
    }
    if (member.endpoint == endpoint) return number;
    if (auto target = parts_.make_target(seed_->target(), endpoint)) {
        member.endpoint = endpoint;
        member.node->topology().turn_to(std::move(target));
    }
    return number;
}

// `id`: empty if only a redirect has named it yet.
uint16_t Cluster::add_member(const std::string& id, const Endpoint& endpoint) {
    const uint64_t nodes_max = parts_.cluster_options.nodes_max;
    const auto nodes = std::count_if(members_.begin(), members_.end(),
                                     [](const auto& member) { return member != nullptr; });
    if (static_cast<uint64_t>(nodes) >= nodes_max) {
        ++parts_.metrics.cluster_nodes_max_total;
        if (!std::exchange(is_full_, true)) {
            parts_.log.warning("cluster_nodes_max",
                               {{"node", to_text(endpoint)},
                                {"limit", static_cast<int64_t>(nodes_max)},
                                {"what", "the slots of further nodes are not served"}});
        }
        return kNobody;
    }
    is_full_ = false;
    auto target = parts_.make_target(seed_->target(), endpoint);
    if (target == nullptr) return kNobody;
    const auto place = static_cast<size_t>(std::find(members_.begin(), members_.end(), nullptr) -
                                           members_.begin());
    if (place == members_.size()) members_.emplace_back();
    const auto number = static_cast<uint16_t>(place);
    if (id.empty()) {
        ++unnamed_;
    } else {
        numbers_[id] = number;
    }
    members_[number] = std::make_unique<Member>();
    Member& member = *members_[number];
    member.id = id;
    member.endpoint = endpoint;
    member.node = std::make_unique<Node>(Node::Parts{.loop = parts_.loop,
                                                     .metrics = parts_.metrics,
                                                     .log = parts_.log,
                                                     .scratch = parts_.scratch,
                                                     .events = *this,
                                                     .cache = parts_.cache,
                                                     .backoff_seed = random_(),
                                                     .is_first = parts_.is_first,
                                                     .redirects = this,
                                                     .seed_catalog = &seed_->catalog(),
                                                     .number = number},
                                         parts_.options, std::move(target));
    coherence_.begin(*member.node);
    member.node->latency().set_slow_us(seed_->latency().slow_us());
    member.node->start();
    return number;
}

// A host "?" has no name: where only one node has the port, it is that one.
uint16_t Cluster::find_member(const Endpoint& endpoint) const {
    uint16_t found = kNobody;
    for (size_t i = 0; i < members_.size(); ++i) {
        if (members_[i] == nullptr || members_[i]->endpoint.port != endpoint.port) continue;
        const auto number = static_cast<uint16_t>(i);
        if (members_[i]->endpoint.host == endpoint.host) return number;
        if (endpoint.host != "?") continue;
        if (found != kNobody) return kNobody;
        found = number;
    }
    return found;
}

// Runs outside of any connection's callbacks.
void Cluster::drop_unlisted() {
    for (auto& member : members_) {
        const bool is_over = member != nullptr && !member->is_listed && member->slots == 0;
        if (!is_over || !member->node->connections().are_unused()) continue;
        if (member->node->coherence().is_proving()) continue;
        if (member->id.empty()) {
            --unnamed_;
        } else {
            numbers_.erase(member->id);
        }
        member.reset();
    }
}

Node& Cluster::home() {
    const auto serves = [this](uint16_t number) {
        return number < members_.size() && members_[number] != nullptr &&
               members_[number]->slots > 0 && members_[number]->node->health().is_ready;
    };
    if (serves(home_)) return *members_[home_]->node;
    for (uint16_t number = 0; number < members_.size(); ++number) {
        if (!serves(number)) continue;
        home_ = number;
        return *members_[number]->node;
    }
    return *seed_;
}

void Cluster::on_health_changed(const UpstreamHealth& health) {
    absence_.note(serves(), parts_.loop.now_ms());
    if (!health.is_ready) doubt();
    parts_.events.on_serving_changed();
}

bool Cluster::serves() const {
    return knows_slots_ && std::any_of(members_.begin(), members_.end(), [](const auto& member) {
               return member != nullptr && member->slots > 0 && member->node->health().is_ready;
           });
}

std::string Cluster::why_not() const {
    if (!refusal_.empty()) return "CLUSTER SLOTS: " + refusal_;
    if (!knows_slots_) return "asking who owns which slot";
    return "no node that owns slots serves: " + degraded_of(*this, facts_of(*this));
}

// --- requests that are sent on ---

void Cluster::on_redirect(Connection& from, const Redirect& redirect, UnsentRequest request) {
    using Kind = Redirect::Kind;
    // A PING by which a node is to prove something: another node's answer would prove nothing.
    if (request.request.kind == RequestKind::Blocking) return deliver(request, redirect.words);
    const int slot = redirect.slot >= 0 ? redirect.slot : slot_of_command(request.bytes);
    const uint16_t number = follow(from, redirect, slot);
    sent_on_.take(request, slot);
    const bool names_node = redirect.kind == Kind::Moved || redirect.kind == Kind::Ask;
    const std::string named = to_text(Endpoint{std::string(redirect.host), redirect.port});
    if (names_node && request.request.redirects >= parts_.cluster_options.redirects_max) {
        request.request.fail(with_place(kCircle, place_in_words(slot, named)), seed_->latency());
        return;
    }
    if (names_node) ++request.request.redirects;
    request.request.protocol = from.protocol();
    if (number == kNobody && names_node && is_full_) {
        request.request.fail(with_place(kFull, place_in_words(slot, named)), seed_->latency());
        return;
    }
    if (number == kNobody) {
        // No client reads of another server.
        const std::string words =
            names_node ? fmt::format(
                             "-TRYAGAIN slot {} moved, where to is not known yet ({}); "
                             "not run\r\n",
                             slot, place_in_words(-1, named))
                       : std::string(redirect.words);
        delay(std::move(request), words);
        return;
    }
    sent_on_.send(std::move(request), number, redirect.kind == Kind::Ask);
}

uint16_t Cluster::follow(const Connection& from, const Redirect& redirect, int slot) {
    static constexpr Count Metrics::*kCounters[] = {
        &Metrics::cluster_moved_total,     &Metrics::cluster_asked_total,
        &Metrics::cluster_readonly_total,  &Metrics::cluster_readonly_total,
        &Metrics::cluster_try_again_total, &Metrics::cluster_down_total};
    ++(parts_.metrics.*kCounters[static_cast<size_t>(redirect.kind)]);
    if (probes::is_traced(nearkey_redirect_semaphore))
        probes::redirect(name_of(redirect.kind), slot, redirect.host, redirect.port);
    // Before the reply can come: its client would see newer, and then older.
    if (slot >= 0) coherence_.void_soon(static_cast<uint16_t>(slot));
    using Kind = Redirect::Kind;
    uint16_t number = kNobody;
    const bool names_node = redirect.kind == Kind::Moved || redirect.kind == Kind::Ask;
    if (names_node && redirect.port != 0) {
        // An address without a host is on the host that was asked.
        const Endpoint endpoint = addresses_.reachable(
            {redirect.host.empty() ? from.host() : std::string(redirect.host), redirect.port});
        number = find_member(endpoint);
        if (number == kNobody && redirect.host != "?") {
            // A replica that was promoted, or unknown to the map yet: its id comes with that.
            const auto& servers = map_.servers();
            const auto found =
                std::find_if(servers.begin(), servers.end(),
                             [&](const auto& server) { return server.endpoint == endpoint; });
            number = member_at(found == servers.end() ? std::string() : found->id, endpoint);
        }
    }
    if (redirect.kind == Kind::Ask) return number;
    hint_ = number;
    doubt();
    const auto moved = static_cast<uint16_t>(redirect.slot);
    const bool is_news = redirect.kind == Kind::Moved && redirect.slot >= 0 && number != kNobody &&
                         owners_[moved] != number;
    if (!is_news) return number;
    ++version_;
    ++parts_.metrics.cluster_slots_moved_total;
    coherence_.void_soon(moved);
    if (set_owner(moved, number)) {
        note_owners();
        parts_.events.on_serving_changed();
    }
    return number;
}

bool Cluster::set_owner(uint16_t slot, uint16_t number) {
    const uint16_t former = std::exchange(owners_[slot], number);
    changed_[slot] = version_;
    if (former != kNobody) members_[former]->has_lost_slots = true;
    const bool is_first = number != kNobody && ++members_[number]->slots == 1;
    const bool is_last = former != kNobody && --members_[former]->slots == 0;
    return is_first || is_last;
}

// What waits for a node that is away, or is held back, goes to the one that its slot came to.
void Cluster::take_along() {
    const auto take_from = [this](Node& from) {
        // Parts of a command for each node have no slot, and run there or nowhere.
        const auto is_elsewhere = [&](const UnsentRequest& each) {
            const int slot = slot_of_command(each.bytes);
            return slot >= 0 && &owner(static_cast<uint16_t>(slot)) != &from &&
                   !sent_on_.has(*each.request.receiver);
        };
        from.shared().for_each([&](Connection& connection) {
            for (UnsentRequest& request : connection.pipeline().take_unsent(is_elsewhere)) {
                request.request.protocol = connection.protocol();
                const int slot = slot_of_command(request.bytes);
                sent_on_.take(request, slot);
                sent_on_.send(std::move(request), owners_[static_cast<size_t>(slot)], false);
                ++parts_.metrics.cluster_taken_along_total;
            }
        });
    };
    if (!knows_slots_) take_from(*seed_);
    for (const auto& member : members_)
        if (member != nullptr && std::exchange(member->has_lost_slots, false))
            take_from(*member->node);
}

void Cluster::send_on(uint16_t number, const UnsentRequest& request, bool is_asking) {
    Node* const found = find(number);
    Node& node = found == nullptr ? *seed_ : *found;
    Connection* const connection =
        node.shared().first(request.request.protocol, node.target().url.database);
    if (connection == nullptr) {
        const std::string place =
            place_in_words(SentOn::slot_of(request), to_text(node.target().url.endpoint()));
        request.request.fail(
            with_place("UPSTREAMDOWN nearkey has no connection left to the node of its slot "
                       "(upstream.connections_max); not run",
                       place),
            node.latency());
        return;
    }
    // ASKING holds for the next command alone; nothing comes between them.
    if (is_asking) connection->send({kAsking, &node.discard(), 0, RequestKind::Write});
    connection->send_again(request);
}

void Cluster::delay(UnsentRequest request, std::string_view words) {
    const auto wait_ms = DelayedRequests::wait_of(request.request, parts_.loop.now_ms(),
                                                  parts_.options.queue_timeout_ms);
    if (!wait_ms || !request.request.receiver->on_request_delayed(request.request.ticket)) {
        deliver(request, words);
        return;
    }
    ++request.request.delays;
    request.request.redirects = 0;  // It goes the same way once more.
    ++parts_.metrics.cluster_delayed_total;
    sent_on_.delay(request);
    delayed_.push(std::move(request), *wait_ms);
}

int Cluster::slot_of_command(std::string_view bytes) const {
    CommandParser parser(static_cast<int64_t>(bytes.size()));
    if (parser.next(bytes) != ParseResult::Command) return -1;
    const CommandSpec* const spec = seed_->catalog().commands().find(parser.command());
    std::vector<std::string_view> keys;
    const Placement placement = place(spec, parser.command(), keys);
    return placement.where == Placement::Where::Slot ? placement.slot : -1;
}

Node& Cluster::node_for(std::string_view bytes) {
    const int slot = slot_of_command(bytes);
    return slot < 0 ? home() : owner(static_cast<uint16_t>(slot));
}

void Cluster::forget(const ReplyReceiver& receiver) {
    delayed_.drop_if(
        [&receiver](const UnsentRequest& request) { return SentOn::is_of(request, receiver); });
    sent_on_.forget(receiver);
    if (replicas != nullptr) replicas->forget(receiver);
}

}  // namespace nearkey
