#include "model_valkey.h"

#include "model_words.h"
#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
std::string bulk(std::string_view text) {
    std::string out;
    append_bulk(out, text);
    return out;
}

std::string integer(int64_t value) {
    return ":" + std::to_string(value) + "\r\n";
}
}  // namespace

std::string joined(int database, const Words& words) {
    std::string line = std::to_string(database);
    for (const std::string& word : words)
        line += ' ' + word;
    return line;
}

ModelValkey::ModelValkey(const Parts& parts, const std::string& name)
    : events_(parts.events),
      random_(parts.random),
      network_(parts.network),
      commands_(parts.commands),
      note_(parts.note),
      name_(name) {
    network_.hosts[name].server = this;
}

std::string ModelValkey::execute_directly(int database, const Words& words) {
    Client direct;
    direct.database = database;
    direct.is_asking = true;
    process(direct, words);
    serve_blocked();
    flush_outputs();
    return direct.output;
}

// What a replica has its primary deletes.
void ModelValkey::note_expiry(const KeyName& key) {
    if (role_ == Role::Replica) return;
    Database& database = databases_[static_cast<size_t>(key.first)];
    const auto found = database.find(key.second);
    if (found == database.end() || !is_expired(found->second)) return;
    const uint64_t gone_us = (found->second.expires_ms + 1) * 1000;
    const size_t before = history().current(key);
    const size_t step = history().observe(key, State(), gone_us, false);
    if (step == before) return;
    history().acknowledge(-1, key, step, gone_us);
    const Stored& stored = found->second;
    history().note_expiry(key, {.since_us = stored.since_us,
                                .gone_us = gone_us,
                                .step = step,
                                .is_of_value = stored.since_us == stored.value_us});
}

const ModelValkey::Executed* ModelValkey::first_execution(const std::string& line,
                                                          uint64_t since_us) const {
    const auto found = executions_->of.find(line);
    if (found == executions_->of.end()) return nullptr;
    for (const Executed& each : found->second) {
        if (each.when_us >= since_us) return &each;
    }
    return nullptr;
}

const ModelValkey::Executed* ModelValkey::last_execution(const std::string& line) const {
    const auto found = executions_->of.find(line);
    return found == executions_->of.end() ? nullptr : &found->second.back();
}

// --- connections ---

void ModelValkey::on_accepted(uint64_t link) {
    auto client = std::make_unique<Client>();
    client->id = ++last_id_;
    client->link = link;
    by_link_[link] = client->id;
    clients_[client->id] = std::move(client);
}

void ModelValkey::on_closed(uint64_t link) {
    clients_.erase(by_link_[link]);
    by_link_.erase(link);
}

void ModelValkey::on_bytes(uint64_t link, std::string_view bytes) {
    Client& client = *clients_.at(by_link_.at(link));
    client.input += bytes;
    run_input(client);
    flush_outputs();
}

void ModelValkey::run_input(Client& client) {
    while (client.blocked.empty() && !client.input.empty() && !client.is_leaving &&
           client.parser.next(client.input) == ParseResult::Command) {
        const CommandView& command = client.parser.command();
        Words words;
        for (size_t i = 0; i < command.size(); ++i)
            words.emplace_back(command[i]);
        client.input.erase(0, client.parser.consumed());
        process(client, words);
        serve_blocked();
    }
}

void ModelValkey::flush_outputs() {
    for (auto& [id, client] : clients_) {
        if (!client->output.empty()) network_.reply(client->link, client->output);
        client->output.clear();
    }
    std::vector<uint64_t> leaving;
    for (const auto& [id, client] : clients_) {
        if (client->is_leaving) leaving.push_back(client->link);
    }
    for (const uint64_t link : leaving)
        network_.leave(link);
}

// --- commands ---

void ModelValkey::process(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    const bool is_caching = name == "CLIENT" && words.size() > 1 && upper(words[1]) == "CACHING";
    const size_t before = client.output.size();
    current_ = &client;
    if (!refuses(client, words) && !process_transaction(client, words) && !blocks(client, words))
        call(client, words);
    if (note_ && !keys_of(words).empty()) {
        const std::string reply = client.output.substr(before);
        note_(name_ + " runs " + joined(client.database, words) + " of " +
              std::to_string(client.id) + " -> " + reply.substr(0, reply.find('\r')));
    }
    tell_pending();
    current_ = nullptr;
    if (!client.in_multi && !is_caching) client.is_untracked = false;
    if (!client.in_multi && name != "ASKING") client.is_asking = false;
}

// True: it was one of a transaction's.
bool ModelValkey::process_transaction(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    if (name == "RESET") {
        forget_state(client);
        client.output += "+RESET\r\n";
    } else if (name == "QUIT") {
        client.output += kOk;
        client.is_leaving = true;
    } else if (name == "MULTI") {
        client.in_multi = true;
        client.output += kOk;
    } else if (name == "EXEC") {
        exec(client);
    } else if (name == "DISCARD") {
        client.output += client.in_multi ? kOk : "-ERR DISCARD without MULTI\r\n";
        if (!client.in_multi) return true;
        client.in_multi = client.is_dirty = client.is_aborted = false;
        client.queued.clear();
        client.watched.clear();
    } else if (name == "WATCH" && !client.in_multi) {
        for (size_t i = 1; i < words.size(); ++i)
            client.watched.emplace(client.database, words[i]);
        client.output += kOk;
    } else if (client.in_multi) {
        client.queued.push_back(words);
        client.output += "+QUEUED\r\n";
    } else {
        return false;
    }
    return true;
}

void ModelValkey::exec(Client& client) {
    if (!std::exchange(client.in_multi, false)) {
        client.output += "-ERR EXEC without MULTI\r\n";
        return;
    }
    const std::vector<Words> queued = std::exchange(client.queued, {});
    const bool is_dirty = std::exchange(client.is_dirty, false);
    client.watched.clear();
    if (std::exchange(client.is_aborted, false)) {
        client.output += "-EXECABORT Transaction discarded because of previous errors.\r\n";
        return;
    }
    if (is_dirty) {
        client.output += client.protocol == Protocol::Resp3 ? "_\r\n" : "*-1\r\n";
        return;
    }
    append_array_header(client.output, queued.size());
    for (const Words& each : queued)
        call(client, each);
}

void ModelValkey::call(Client& client, const Words& words) {
    touched_.clear();
    is_silent_ = false;
    const int database = client.database;
    client.output += run(client, words);
    track(client, words);
    note_executed(database, words);
}

void ModelValkey::note_executed(int database, const Words& words) {
    // Of empty databases, too: or another one of the same words would be taken for it.
    const std::string name = upper(words[0]);
    if (touched_.empty() && name != "SWAPDB" && name != "FLUSHALL") return;
    using What = Change::What;
    Change change{name == "SWAPDB"     ? What::Swap
                  : name == "FLUSHALL" ? What::Flush
                                       : What::Keys,
                  {}};
    Executed executed{events_.now_us, reign, {}, ++executions_->count};
    for (const KeyName& key : touched_) {
        const size_t step = history().observe(key, state_of(key), events_.now_us, is_silent_);
        executed.steps.emplace_back(key, step);
        change.parts.push_back({key, stored_as(key), step});
        note_change(key);
    }
    const std::string line = joined(database, words);
    std::vector<Executed>& same = executions_->of[line];
    same.push_back(std::move(executed));
    // A value is written by one command alone.
    if (same.size() > 1 && line.find('=') != std::string::npos) executions_->twice = line;
    replicate(std::move(change));
}

std::string ModelValkey::run(Client& client, const Words& words) {
    for (const auto family :
         {&ModelValkey::run_cluster, &ModelValkey::run_strings, &ModelValkey::run_keys,
          &ModelValkey::run_lists, &ModelValkey::run_keyspace, &ModelValkey::run_script,
          &ModelValkey::run_connection}) {
        std::string reply = (this->*family)(client, words);
        if (!reply.empty()) return reply;
    }
    return "-ERR unknown command '" + words[0] + "'\r\n";
}

std::string ModelValkey::run_strings(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    const int database = client.database;
    std::string null;
    append_null(null, client.protocol);
    if (name == "GET" || name == "HGET") {
        const Stored* stored = find(database, words[1]);
        return stored == nullptr ? null : bulk(stored->value);
    }
    if (name == "GETRANGE") {
        const Stored* stored = find(database, words[1]);
        return stored == nullptr ? bulk("") : bulk(stored->value);
    }
    if (name == "MGET") {
        std::string reply;
        append_array_header(reply, words.size() - 1);
        for (size_t i = 1; i < words.size(); ++i) {
            const Stored* stored = find(database, words[i]);
            reply += stored == nullptr || stored->type != 's' ? null : bulk(stored->value);
        }
        return reply;
    }
    if (name == "HGETALL") {
        const Stored* stored = find(database, words[1]);
        std::string reply;
        append_map_header(reply, stored == nullptr ? 0 : 1, client.protocol);
        return stored == nullptr ? reply : reply + bulk("f") + bulk(stored->value);
    }
    if (name == "HSCAN") {
        const Stored* stored = find(database, words[1]);
        const std::string reply = "*2\r\n" + bulk("0");
        return stored == nullptr ? reply + "*0\r\n"
                                 : reply + "*2\r\n" + bulk("f") + bulk(stored->value);
    }
    if (name == "SET") {
        find(database, words[1]);
        const uint64_t expires_ms = words.size() < 5 ? 0 : now_ms() + std::stoull(words[4]);
        put(database, words[1], {words[2], 's', expires_ms});
        return kOk;
    }
    if (name == "HSET") {
        const Stored* old = find(database, words[1]);
        const bool is_new = old == nullptr;
        put(database, words[1], {words[3], 'h', is_new ? 0 : old->expires_ms});
        return integer(is_new ? 1 : 0);
    }
    return "";
}

std::string ModelValkey::run_keys(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    const int database = client.database;
    if (name == "EXISTS" || name == "TOUCH") {
        int64_t count = 0;
        for (size_t i = 1; i < words.size(); ++i)
            count += find(database, words[i]) == nullptr ? 0 : 1;
        return integer(count);
    }
    if (name == "DEL") {
        const bool is_there = find(database, words[1]) != nullptr;
        if (is_there) erase(database, words[1]);
        touched_.insert({database, words[1]});
        return integer(is_there ? 1 : 0);
    }
    if (name == "PTTL") {
        const Stored* stored = find(database, words[1]);
        if (stored == nullptr) return integer(-2);
        if (stored->expires_ms == 0) return integer(-1);
        return integer(static_cast<int64_t>(stored->expires_ms - now_ms()));
    }
    if (name == "PEXPIRE") {
        Stored* stored = find(database, words[1]);
        if (stored == nullptr) return integer(0);
        stored->expires_ms = now_ms() + std::stoull(words[2]);
        stored->since_us = events_.now_us;
        change(database, words[1]);
        return integer(1);
    }
    if (name == "RENAME" || name == "COPY") return rename_or_copy(client, words);
    if (name == "FLUSHALL") return flush();
    if (name == "SWAPDB") return swap();
    return "";
}

// --- what is stored ---

// As Valkey does: what has expired is deleted by whoever looks.
ModelValkey::Stored* ModelValkey::find(int database, const std::string& name) {
    Database& stored = databases_[static_cast<size_t>(database)];
    const auto found = stored.find(name);
    if (found == stored.end()) return nullptr;
    if (!is_expired(found->second)) return &found->second;
    if (is_replica()) return nullptr;
    const KeyName key{database, name};
    note_expiry(key);
    stored.erase(found);
    invalidate(name);
    replicate({Change::What::Keys, {{key, std::nullopt, history().current(key)}}});
    return nullptr;
}

void ModelValkey::put(int database, const std::string& name, const Stored& stored) {
    Stored& kept = databases_[static_cast<size_t>(database)][name];
    const uint64_t value_us = kept.value == stored.value ? kept.value_us : events_.now_us;
    kept = stored;
    kept.since_us = events_.now_us;
    kept.value_us = value_us;
    change(database, name);
}

void ModelValkey::erase(int database, const std::string& name) {
    databases_[static_cast<size_t>(database)].erase(name);
    change(database, name);
}

void ModelValkey::change(int database, const std::string& name) {
    touched_.insert({database, name});
    invalidate(name);
}

void ModelValkey::expire_some() {
    for (int database = 0; database < kDatabases; ++database) {
        std::vector<std::string> names;
        for (const auto& [name, stored] : databases_[static_cast<size_t>(database)])
            names.push_back(name);
        for (const std::string& name : names) {
            if (random_.one_in(2)) find(database, name);
        }
    }
    flush_outputs();
}

void ModelValkey::restart() {
    for (int database = 0; database < kDatabases; ++database) {
        for (const auto& [name, stored] : databases_[static_cast<size_t>(database)]) {
            note_expiry({database, name});
            history().observe({database, name}, State(), events_.now_us, true);
        }
        databases_[static_cast<size_t>(database)].clear();
    }
    forget_all();
}

void ModelValkey::forget_all() {
    network_.kill_all_of(name_);
    NEARKEY_CHECK(clients_.empty());
    databases_.assign(kDatabases, {});
    tracking_.clear();
    counted_.clear();
}

}  // namespace nearkey::simulation
