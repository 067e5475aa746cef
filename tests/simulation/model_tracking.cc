// The connection's own commands of the model server, and its tracking table.
#include "model_valkey.h"
#include "model_words.h"

#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace nearkey::simulation {

namespace {
bool is_tracked_read(std::string_view name) {
    static constexpr std::array<std::string_view, 11> kReads{
        "get",    "hget",  "getrange", "mget",   "hgetall", "hscan",
        "exists", "touch", "pttl",     "lrange", "llen"};
    return std::any_of(kReads.begin(), kReads.end(),
                       [&](std::string_view read) { return is(name, read); });
}
}  // namespace

std::string ModelValkey::run_connection(Client& client, const Words& words) {
    if (is(words[0], "hello")) return hello(client, words);
    if (is(words[0], "client")) return client_command(client, words);
    if (is(words[0], "command")) return commands_;
    if (is(words[0], "select")) {
        const int database = std::stoi(words[1]);
        if (slots_ != nullptr && database != 0)
            return "-ERR SELECT is not allowed in cluster mode\r\n";
        if (database < 0 || database >= kDatabases) return "-ERR DB index is out of range\r\n";
        client.database = database;
        return kOk;
    }
    if (is(words[0], "ping")) {
        if (words.size() == 1) return "+PONG\r\n";
        std::string reply;
        append_bulk(reply, words[1]);
        return reply;
    }
    if (is(words[0], "role")) return role();
    if (is(words[0], "info")) {
        if (info_lag_us > 0) network_.slow_down(client.link, info_lag_us);
        return info();
    }
    if (is(words[0], "config") && is(words[1], "get")) {
        std::string reply;
        append_map_header(reply, 0, client.protocol);
        return reply;
    }
    if (is(words[0], "config")) {
        counted_.clear();
        count("config|resetstat", random_.between(20, 60));
        return kOk;
    }
    return "";
}

// What is executed now is counted when it has been.
std::string ModelValkey::info() {
    std::string text = "# Commandstats\r\n";
    for (const auto& [name, counted] : counted_) {
        text += "cmdstat_" + name + ":calls=" + std::to_string(counted.calls) +
                ",usec=" + std::to_string(counted.usec) +
                ",usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n";
    }
    count("info", 1);
    std::string reply;
    append_bulk(reply, text);
    return reply;
}

void ModelValkey::count(const std::string& name, uint64_t usec) {
    ++counted_[name].calls;
    counted_[name].usec += usec;
}

std::string ModelValkey::hello(Client& client, const Words& words) {
    if (words.size() > 1) client.protocol = words[1] == "3" ? Protocol::Resp3 : Protocol::Resp2;
    std::string reply;
    append_map_header(reply, slots_ == nullptr ? 5 : 6, client.protocol);
    append_bulk(reply, "server");
    append_bulk(reply, "valkey");
    append_bulk(reply, "version");
    append_bulk(reply, "8.0.1");
    append_bulk(reply, "proto");
    append_integer(reply, number_of(client.protocol));
    append_bulk(reply, "id");
    append_integer(reply, static_cast<int64_t>(client.id));
    append_bulk(reply, "role");
    append_bulk(reply, is_replica() ? "replica" : "master");
    if (slots_ == nullptr) return reply;
    append_bulk(reply, "mode");
    append_bulk(reply, "cluster");
    return reply;
}

std::string ModelValkey::client_command(Client& client, const Words& words) {
    if (is(words[1], "setname")) client.name = words[2];
    if (is(words[1], "capa")) client.is_redirected = true;
    if (is(words[1], "capa") || is(words[1], "setname") || is(words[1], "setinfo") ||
        is(words[1], "reply"))
        return kOk;
    if (is(words[1], "tracking")) return tracking_on(client, words);
    if (is(words[1], "caching")) {
        if (!client.is_tracking) {
            return "-ERR CLIENT CACHING can be called only when the client is in tracking mode "
                   "with OPTIN or OPTOUT mode enabled\r\n";
        }
        client.is_untracked = true;
        return kOk;
    }
    return "-ERR unknown subcommand\r\n";
}

std::string ModelValkey::tracking_on(Client& client, const Words& words) {
    uint64_t redirect = 0;
    for (size_t i = 3; i + 1 < words.size(); ++i) {
        if (is(words[i], "redirect")) redirect = std::stoull(words[i + 1]);
    }
    if (redirect != 0 && !clients_.contains(redirect)) {
        return "-ERR The client ID you want redirect to does not exist\r\n";
    }
    client.is_tracking = true;
    client.redirect = redirect;
    if (tracking_lag_us > 0) slow_down(client);
    return kOk;
}

// It is tracked from now on.
void ModelValkey::slow_down(const Client& client) {
    if (do_loops_differ && client.name != kFirstLoop) return;
    const Client& told = client.redirect != 0 ? *clients_.at(client.redirect) : client;
    network_.slow_down(told.link, random_.between(tracking_lag_us / 2, tracking_lag_us));
    if (random_.one_in(2))
        network_.slow_down_requests(client.link, random_.between(20, tracking_lag_us));
}

// clearClientConnectionState in networking.c.
void ModelValkey::forget_state(Client& client) {
    client.is_tracking = client.is_untracked = client.in_multi = client.is_dirty = false;
    client.is_aborted = client.is_asking = false;
    client.redirect = 0;
    client.queued.clear();
    client.watched.clear();
    client.protocol = Protocol::Resp2;
    client.database = 0;
}

void ModelValkey::slow_down_receivers(uint64_t delay_us) {
    for (const auto& [id, client] : clients_) {
        const auto receiver = clients_.find(client->redirect);
        if (receiver != clients_.end()) network_.slow_down(receiver->second->link, delay_us);
    }
}

// --- the tracking table ---

void ModelValkey::track(Client& client, const Words& words) {
    if (!client.is_tracking || client.is_untracked || !is_tracked_read(words[0])) return;
    const bool has_many = is(words[0], "mget") || is(words[0], "exists") || is(words[0], "touch");
    const size_t end = has_many ? words.size() : 2;
    for (size_t i = 1; i < end; ++i)
        tracking_[words[i]].insert(client.id);
}

// Of the bare name: the table knows no databases.
void ModelValkey::invalidate(const std::string& name) {
    const auto found = tracking_.find(name);
    if (found == tracking_.end()) return;
    const std::set<uint64_t> told = std::move(found->second);
    tracking_.erase(found);
    for (const uint64_t id : told) {
        const auto client = clients_.find(id);
        if (client == clients_.end()) continue;
        if (client->second.get() == current_) {
            pending_.push_back(name);
        } else {
            tell(*client->second, &name);
        }
    }
}

void ModelValkey::tell_pending() {
    for (const std::string& name : std::exchange(pending_, {}))
        tell(*current_, &name);
    if (std::exchange(is_flush_pending_, false)) tell(*current_, nullptr);
}

// Null: of everything. Lost if nobody is there to be told.
void ModelValkey::tell(Client& tracked, const std::string* name) {
    Client* told = &tracked;
    if (tracked.redirect != 0) {
        const auto found = clients_.find(tracked.redirect);
        if (found == clients_.end()) return;
        told = found->second.get();
    }
    if (told->protocol != Protocol::Resp3) return;
    told->output += ">2\r\n$10\r\ninvalidate\r\n";
    if (name == nullptr) {
        told->output += "_\r\n";
        return;
    }
    append_array_header(told->output, 1);
    append_bulk(told->output, *name);
}

void ModelValkey::tell_all_of_everything() {
    tracking_.clear();
    for (auto& [id, client] : clients_) {
        if (!client->is_tracking) continue;
        if (client.get() == current_) {
            is_flush_pending_ = true;
        } else {
            tell(*client, nullptr);
        }
    }
}

void ModelValkey::overflow_tracking(size_t keys) {
    while (tracking_.size() > keys) {
        const auto victim =
            std::next(tracking_.begin(), static_cast<ptrdiff_t>(random_.below(tracking_.size())));
        const std::string name = victim->first;
        invalidate(name);
    }
    flush_outputs();
}

}  // namespace nearkey::simulation
