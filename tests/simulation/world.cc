#include "world.h"

#include "failovers.h"
#include "instance.h"
#include "nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
constexpr uint64_t kSecondUs = 1'000'000;
constexpr uint64_t kRunUs = 3 * kSecondUs;
constexpr int kInstances = 2;
constexpr uint64_t kClients = 6;  // of each
}  // namespace

World::World(uint64_t seed, const Options& options)
    : random_(seed),
      events_(*loop_.raw()),
      network_(events_, random_),
      kinds_(options.kinds),
      is_traced_(options.is_traced),
      is_calm_(random_.one_in(3)),
      client_pause_us_(random_.between(200, 20'000)),
      writes_one_in_(is_calm_ ? random_.between(40, 300) : random_.between(4, 40)),
      ways_one_in_(random_.one_in(3) ? random_.between(4, 40) : random_.between(20, 400)),
      owed_max_(random_.one_in(2) ? 1 : random_.between(2, 16)),
      disturbs_(random_.one_in(2)),
      likes_mget_(random_.one_in(4)),
      hot_names_(uint64_t{1} << random_.below(4)),
      are_alike_(random_.one_in(2)),
      alike_kind_(random_.below(4)),
      swaps_one_in_(random_.one_in(4) ? random_.between(20, 100) : 180),
      expiring_one_in_(random_.one_in(4) ? 2 : 15),
      write_pause_us_(random_.between(2'000, is_calm_ ? 200'000 : 60'000)),
      harm_pause_us_(random_.between(20'000, is_calm_ ? 3'000'000 : 1'000'000)),
      harm_us_(random_.between(5'000, 1'500'000)),
      segment_random_(~seed),
      has_segments_(kinds_.has(Kind::Segment) && segment_random_.one_in(3)) {
    loop_.raw()->random = &random_;
    const bool is_cluster = seed % 3 == 2 && kinds_.has(Kind::Nodes);
    if (is_cluster) {
        choose_rates_of_cluster();
        nodes_ = std::make_unique<Nodes>(*this, options.commands);
    } else {
        for (const char* name : kServers)
            add_server(name, options.commands);
        if (kinds_.has(Kind::Failovers) && Random(seed).one_in(2))
            failovers_ = std::make_unique<Failovers>(*this);
        is_quiet_ = failovers_ && !random_.one_in(3);
        if (is_quiet_) {
            hot_names_ = random_.between(1, 2);
            likes_mget_ = false;
            client_pause_us_ = random_.between(200, 2'000);
            write_pause_us_ = random_.between(5'000, 60'000);
        }
    }
    choose_lags();
    for (int i = 0; i < kInstances; ++i)
        instances_.push_back(std::make_unique<Instance>(*this, i, random_.below(UINT64_MAX)));
}

// Sessions end before their nodes; what is planned holds nobody alive.
World::~World() {
    for (const auto& client : clients_)
        client->abort();
    clients_.clear();
    instances_.clear();
}

void World::run() {
    write_directly();
    maintain();
    do_harm();
    if (has_segments_) read_segments();
    if (failovers_) failovers_->start();
    if (nodes_) nodes_->start();
    events_.at(kRunUs, [this] { loop_.stop(); });
    loop_.run();
    for (const auto& client : clients_)
        note("awaited: " + client->awaited());
    for (const auto& valkey : valkeys_) {
        if (const std::string& twice = valkey->executions().twice; !twice.empty())
            on_violation("TWICE " + twice, "");
        if (nodes_) break;  // They all know the same.
    }
#ifndef NEARKEY_SABOTAGE  // A broken rule may break what it keeps together, too.
    for (const auto& instance : instances_)
        instance->check();
#endif
}

void World::add_server(const std::string& name, const std::string& commands) {
    std::function<void(const std::string&)> notes;
    if (is_traced_) notes = [this](const std::string& what) { note(what); };
    valkeys_.push_back(std::make_unique<ModelValkey>(
        ModelValkey::Parts{events_, random_, network_, commands, notes}, name));
    ModelValkey& server = *valkeys_.back();
    reigns_.push_back(std::make_unique<Reign>(Reign{.primary = &server, .history = {}}));
    server.reign = reigns_.back().get();
}

// A cluster has one database, and its clients know of no other. If it is quiet, they read the same
// few keys, which are often absent.
void World::choose_rates_of_cluster() {
    constexpr uint64_t kTags[] = {0, 1, 2, 4};
    tags_ = kTags[random_.below(4)];
    are_alike_ = true;
    alike_kind_ &= 1;
    swaps_one_in_ = UINT64_MAX;
    ways_one_in_ = random_.between(4, 400);
    for (const Kind kind : {Kind::Select, Kind::Tunnels, Kind::Keyspace, Kind::Upstream})
        kinds_.leave_out(kind);
    is_quiet_ = !random_.one_in(3);
    if (!is_quiet_) {
        owed_max_ = random_.between(2, 16);
        writes_one_in_ = random_.between(2, 10);
        client_pause_us_ = random_.between(200, 5'000);
        return;
    }
    hot_names_ = random_.between(1, 3);
    likes_mget_ = false;
    client_pause_us_ = random_.between(200, 2'000);
    write_pause_us_ = random_.between(5'000, 200'000);
    harm_pause_us_ = random_.between(100'000, 4'000'000);
    deletes_one_in_ = random_.one_in(2) ? random_.between(2, 4) : random_.between(10, 40);
    odd_reads_one_in_ = random_.between(2, 10);
}

void World::choose_lags() {
    constexpr uint64_t kLags[] = {100, 5'000, 20'000, 60'000};
    uint64_t tracking_lag_us = kLags[random_.below(nodes_ ? 3 : 4)];
    if (nodes_ && random_.one_in(2)) tracking_lag_us = 0;
    const bool has_slow_info = random_.one_in(6) && !nodes_;
    const uint64_t info_lag_us = has_slow_info ? random_.between(30'000, 100'000) : 0;
    if (info_lag_us > 0) {
        // Only RESP2 and database 0 are read over the connection that asks for INFO.
        tracking_lag_us = 0;
        swaps_one_in_ = 10;
        are_alike_ = true;
        alike_kind_ = random_.between(1, 3);
    }
    const bool do_loops_differ = random_.one_in(2);
    for (const auto& valkey : valkeys_) {
        valkey->do_loops_differ = do_loops_differ;
        valkey->tracking_lag_us = kinds_.has(Kind::Lag) ? tracking_lag_us : 0;
        valkey->info_lag_us = kinds_.has(Kind::Lag) ? info_lag_us : 0;
    }
}

uint64_t World::operations() const {
    uint64_t sum = 0;
    for (const auto& client : clients_)
        sum += client->operations;
    return sum;
}

uint64_t World::hits() const {
    uint64_t sum = 0;
    for (const auto& instance : instances_)
        sum += instance->metrics.near_cache_hits_total;
    return sum;
}

uint64_t World::segment_hits() const {
    uint64_t sum = 0;
    for (const auto& client : clients_)
        sum += client->segment_hits;
    return sum;
}

// Mostly of one protocol in one database, or of both in both, and two more; each event loop has its
// share of them.
void World::start_clients(int channel, SessionContext& context) {
    Judge& judge = *this;
    const Instance& instance = *instances_[static_cast<size_t>(channel)];
    const uint64_t clients = std::max(kClients / instance.workers(), uint64_t{3});
    for (uint64_t i = 0; i < clients; ++i) {
        const uint64_t alike = random_.one_in(4) ? alike_kind_ ^ 1 : alike_kind_;
        const uint64_t kind = are_alike_ ? alike : i < 4 ? i : random_.below(4);
        const ClientPlan plan{.channel = channel,
                              .upstream = instance.upstream,
                              .kinds = kinds_,
                              .protocol = kind % 2 == 0 ? 2 : 3,
                              .database = static_cast<int>(kind / 2),
                              .pause_max_us = client_pause_us_,
                              .bound_us = instance.bound_us(),
                              .writes_one_in = writes_one_in_,
                              .ways_one_in = ways_one_in_,
                              .owed_max = owed_max_,
                              .likes_mget = likes_mget_,
                              .hot_names = hot_names_,
                              .swaps_one_in = swaps_one_in_,
                              .expiring_one_in = expiring_one_in_,
                              .is_quiet = is_quiet_,
                              .tags = tags_,
                              // Whose clients read but what is stored hears of nothing.
                              .odd_reads_one_in = channel == 0 ? odd_reads_one_in_ : 0,
                              .segment = instance.segment()};
        clients_.push_back(std::make_unique<SimulatedClient>(events_, random_, judge, plan));
        clients_.back()->start(context);
    }
}

void World::write_directly() {
    const auto go_on_after = [this](uint64_t delay_us) {
        events_.after(delay_us + random_.between(1, write_pause_us_), [this] { write_directly(); });
    };
    if (is_settling_) {
        go_on_after(0);
        return;
    }
    const bool is_hot = random_.one_in(2) || is_quiet_;
    const uint64_t number = random_.below(is_hot ? hot_names_ : kNames);
    if (clients_.empty() || is_quiet_ || random_.one_in(3)) {
        go_on_after(0);
        change_directly(random_database(), number);
        return;
    }
    // What one nearkey has stored is changed, and a client of it sees that in another way while the
    // news is on its way.
    const uint64_t who = random_.below(clients_.size());
    const int channel = clients_[who]->channel();
    const int database = clients_[who]->database();
    const KeyName key{database, name_of_key(number, tags_)};
    const uint64_t change_us = random_.between(20'000, 80'000);
    go_on_after(disturbs_ ? 0 : change_us + 20'000);
    for (const auto& client : clients_) {
        if (client->channel() != channel || random_.one_in(3)) continue;
        client->look_again(key, random_.below(change_us / 3));
        if (disturbs_) client->look_again(key, change_us + random_.below(20'000));
    }
    events_.after(change_us, [this, key, number, who, channel] {
        change_directly(key.first, number);
        for (size_t i = 0; i < clients_.size(); ++i) {
            if (i == who || (clients_[i]->channel() == channel && random_.one_in(4)))
                clients_[i]->peek(key, random_.below(4'000));
        }
    });
}

int World::random_database() {
    if (nodes_) return 0;
    if (are_alike_ && !random_.one_in(4)) return static_cast<int>(alike_kind_ / 2);
    return static_cast<int>(random_.below(ModelValkey::kDatabases));
}

void World::change_directly(int database, uint64_t number) {
    if (!failovers_ && !nodes_ && network_.is_still(kServers[0])) return;
    const std::string name = name_of_key(number, tags_);
    const std::string value = next_value(random_, name);
    Words words = number % 2 == 0 ? Words{"SET", name, value} : Words{"HSET", name, "f", value};
    uint64_t choice = random_.one_in(swaps_one_in_) ? 100 : random_.below(100);
    if (deletes_one_in_ > 0 && random_.one_in(deletes_one_in_)) choice = 2;
    switch (choice) {
        case 100:
            words = {"SWAPDB", "0", "1"};
            break;
        case 0:
            words = {"FLUSHALL"};
            break;
        case 2:
        case 3:
            words = {"DEL", name};
            break;
        case 4:
        case 5:
            words = {"PEXPIRE", name, std::to_string(random_.between(1, 300))};
            break;
        default:
            break;
    }
    execute_directly({database, name}, words);
}

void World::execute_directly(const KeyName& key, const Words& words) {
    const uint64_t now_us = events_.now_us;
    const auto& [database, name] = key;
    const bool is_swap = words[0] == "SWAPDB";
    ModelValkey& valkey = server_to_change(name);
    if ((failovers_ || nodes_) && network_.is_still(valkey.name())) return;
    const std::string reply = valkey.execute_directly(database, words);
    // It does as a client that knows of clusters.
    if (ModelValkey* const next = reply.starts_with("-ASK") ? nodes_->importer_of(name) : nullptr) {
        if (network_.is_still(next->name())) return;
        next->execute_directly(database, words);
    }
    // What was counted looks as it did before.
    const bool is_reset = kinds_.has(Kind::Resets) && random_.one_in(is_swap ? 3 : 200);
    if (is_reset) valkey.execute_directly(database, {"CONFIG", "RESETSTAT"});
    const std::string line = joined(database, words);
    note("directly: " + line);
    const ModelValkey::Executed* executed = valkey.last_execution(line);
    if (executed == nullptr) return;
    for (const auto& [changed, step] : executed->steps)
        executed->reign->history.acknowledge(kNobody, changed, step, now_us);
}

// After a failover somebody may not know of it.
ModelValkey& World::server_to_change(const std::string& key) {
    const bool is_other = random_.one_in(4);
    if (nodes_) {
        ModelValkey* const unaware = nodes_->unaware();
        return is_other && unaware != nullptr ? *unaware : nodes_->owner_of(key);
    }
    if (!failovers_) return *valkeys_[is_other ? 1 : 0];
    ModelValkey* const unaware = failovers_->unaware();
    return is_other && unaware != nullptr ? *unaware : failovers_->newest();
}

void World::maintain() {
    events_.after(random_.between(1'000, 300'000), [this] { maintain(); });
    for (const auto& valkey : valkeys_) {
        if (network_.is_still(valkey->name())) continue;
        valkey->expire_some();
        if (random_.one_in(8) && !is_quiet_) valkey->overflow_tracking(random_.below(6));
    }
}

// Between any two turns somebody reads a string there.
void World::read_segments() {
    events_.after(segment_random_.between(5, 300), [this] { read_segments(); });
#ifndef NEARKEY_SABOTAGE
    if (segment_random_.one_in(64)) {
        for (const auto& instance : instances_)
            instance->check();
    }
#endif
    if (clients_.empty()) return;
    const uint64_t number = segment_random_.below(segment_random_.one_in(2) ? hot_names_ : kNames);
    SimulatedClient& client = *clients_[segment_random_.below(clients_.size())];
    client.read_segment(client.name_of(number / 2 * 2));
}

void World::do_harm() {
    events_.after(random_.between(1, harm_pause_us_), [this] {
        harm();
        do_harm();
    });
}

void World::harm() {
    const uint64_t until_us = events_.now_us + random_.between(1, harm_us_);
    switch (random_.below(16)) {
        case 14:
            if (!kinds_.has(Kind::Lag)) return;
            if (random_.one_in(2)) {
                network_.slow_down_any(random_.between(10'000, 150'000));
                return;
            }
            for (const auto& valkey : valkeys_)
                valkey->slow_down_receivers(random_.between(1'000, 50'000));
            return;
        case 15:
            if (!kinds_.has(Kind::Upstream) || failovers_ || nodes_) return;
            note("a nearkey turns to the other server");
            instances_[random_.below(kInstances)]->turn();
            return;
        case 0:
        case 1:
        case 8:
            note("a connection is killed");
            network_.kill_any();
            // Which nobody is told of, then.
            for (uint64_t number = kNamesWritten; number < kNames; ++number)
                events_.after(random_.below(10'000), [this, number] {
                    const auto database = static_cast<int>((number - kNamesWritten) / 2);
                    change_directly(nodes_ ? 0 : database, number);
                });
            return;
        case 2:
        case 3:
            network_.change_delays();
            return;
        case 4:
            if (is_quiet_) return;
            note(fmt::format("the server is frozen until {} us", until_us));
            for (auto& [name, host] : network_.hosts)
                host.frozen_until_us =
                    std::max(until_us, failovers_ || nodes_ ? host.frozen_until_us : 0);
            return;
        case 5:
            if (failovers_ || nodes_) return;
            if (random_.one_in(4) && !network_.hosts.at(kServers[0]).is_down) restart_server();
            return;
        case 6:
        case 7:
            note(fmt::format("link {} is killed, which is known at {} us",
                             network_.kill_quietly(until_us), until_us));
            return;
        default:
            note(fmt::format("link {} is frozen until {} us", network_.freeze_any(until_us),
                             until_us));
    }
}

void World::restart_server() {
    note("the server is restarted, all is lost");
    network_.kill_all();
    for (const auto& valkey : valkeys_)
        valkey->restart();
    const auto set_down = [this](bool is_down) {
        for (auto& [name, host] : network_.hosts)
            host.is_down = is_down;
    };
    set_down(true);
    events_.after(random_.between(1, 200'000), [set_down] { set_down(false); });
}

void World::note(const std::string& what) {
    if (is_traced_) trace += fmt::format("  {:>9} us  {}\n", events_.now_us, what);
}

void World::on_turned(int channel) {
    note(fmt::format("nearkey {} has turned", channel));
    for (const auto& client : clients_) {
        if (client->channel() == channel) client->on_turned();
    }
}

void World::on_violation(const std::string& what, const std::string& told) {
    violations.push_back(what);
    if (is_traced_) trace += "  " + what + "\n  the key's steps:\n" + told;
    loop_.stop();
}

void World::on_answer(const std::string& line) {
    for (const char byte : line)
        digest_ = (digest_ ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
    note(line);
}

}  // namespace nearkey::simulation
