// Lists and who waits for them, scripts, and what concerns many keys, of the model server.
#include "model_valkey.h"
#include "model_words.h"

#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> elements;
    for (size_t begin = 0; begin <= list.size();) {
        const size_t end = std::min(list.find(',', begin), list.size());
        elements.push_back(list.substr(begin, end - begin));
        begin = end + 1;
    }
    return elements;
}

std::string array(const std::vector<std::string>& elements) {
    std::string reply;
    append_array_header(reply, elements.size());
    for (const std::string& each : elements)
        append_bulk(reply, each);
    return reply;
}

std::string null_array(Protocol protocol) {
    return protocol == Protocol::Resp3 ? "_\r\n" : "*-1\r\n";
}
}  // namespace

std::string ModelValkey::run_lists(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    const int database = client.database;
    if (name == "LPUSH") {
        const Stored* old = find(database, words[1]);
        Stored list{words[2], 'l', 0, 0};
        if (old != nullptr) list = {words[2] + ',' + old->value, 'l', old->expires_ms, 0};
        put(database, words[1], list);
        return ":" + std::to_string(split(list.value).size()) + "\r\n";
    }
    if (name == "LRANGE") {
        const Stored* list = find(database, words[1]);
        return array(list == nullptr ? std::vector<std::string>{} : split(list->value));
    }
    if (name == "LLEN") {
        const Stored* list = find(database, words[1]);
        return ":" + std::to_string(list == nullptr ? 0 : split(list->value).size()) + "\r\n";
    }
    if (name != "BLPOP") return "";
    const Stored* list = find(database, words[1]);
    if (list == nullptr) return null_array(client.protocol);
    const size_t first = list->value.find(',');
    const std::string popped = list->value.substr(0, first);
    if (first == std::string::npos) {
        erase(database, words[1]);
    } else {
        put(database, words[1], {list->value.substr(first + 1), 'l', list->expires_ms, 0});
    }
    return array({words[1], popped});
}

// True: its client waits from now on.
bool ModelValkey::blocks(Client& client, const Words& words) {
    if (upper(words[0]) != "BLPOP" || find(client.database, words[1]) != nullptr) return false;
    client.blocked = words;
    client.block = ++blocks_;
    const auto timeout_us = static_cast<uint64_t>(std::stod(words[2]) * 1e6);
    events_.after(timeout_us,
                  [this, id = client.id, block = client.block] { end_block(id, block); });
    return true;
}

void ModelValkey::end_block(uint64_t id, uint64_t block) {
    const auto found = clients_.find(id);
    if (found == clients_.end() || found->second->block != block) return;
    if (found->second->blocked.empty()) return;
    if (const uint64_t until_us = network_.hosts.at(name_).frozen_until_us;
        until_us > events_.now_us) {
        events_.at(until_us, [this, id, block] { end_block(id, block); });
        return;
    }
    unblock(*found->second, null_array(found->second->protocol));
    serve_blocked();
    flush_outputs();
}

void ModelValkey::unblock(Client& client, const std::string& reply) {
    client.blocked.clear();
    client.output += reply;
    run_input(client);
}

void ModelValkey::serve_blocked() {
    std::vector<uint64_t> waiting;
    for (const auto& [id, client] : clients_) {
        if (!client->blocked.empty()) waiting.push_back(id);
    }
    for (const uint64_t id : waiting) {
        Client& client = *clients_.at(id);
        if (client.blocked.empty()) continue;
        if (find(client.database, client.blocked[1]) == nullptr) continue;
        const Words words = std::exchange(client.blocked, {});
        current_ = &client;
        call(client, words);
        tell_pending();
        current_ = nullptr;
        run_input(client);
    }
}

// EVAL what number-of-keys key... name [value]: `name` need not be one of the keys.
std::string ModelValkey::run_script(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    if (name != "EVAL" && name != "EVAL_RO") return "";
    const size_t place = 3 + std::stoul(words[2]);
    Words inner{words[1], words[place]};
    if (words[1].starts_with('H')) inner.push_back("f");
    if (place + 1 < words.size()) inner.push_back(words[place + 1]);
    if (is_replica() && words[1].ends_with("SET"))
        return "-READONLY You can't write against a read only replica. script: 0, on "
               "@user_script:1.\r\n";
    return run_strings(client, inner);
}

// What has expired is not shown.
std::string ModelValkey::run_keyspace(Client& client, const Words& words) {
    const std::string name = upper(words[0]);
    const Database& stored = databases_[static_cast<size_t>(client.database)];
    if (name == "DBSIZE") return ":" + std::to_string(stored.size()) + "\r\n";
    if (name == "SPUBLISH") return ":0\r\n";
    if (name != "KEYS" && name != "SCAN") return "";
    std::vector<std::string> names;
    for (const auto& [each, value] : stored) {
        if (!is_expired(value)) names.push_back(each);
    }
    const std::string reply = array(names);
    return name == "KEYS" ? reply : "*2\r\n$1\r\n0\r\n" + reply;
}

std::string ModelValkey::rename_or_copy(Client& client, const Words& words) {
    const int database = client.database;
    const bool is_rename = upper(words[0]) == "RENAME";
    const Stored* from = find(database, words[1]);
    if (from == nullptr) return is_rename ? "-ERR no such key\r\n" : ":0\r\n";
    const Stored moved = *from;
    find(database, words[2]);
    put(database, words[2], moved);
    if (is_rename) erase(database, words[1]);
    return is_rename ? kOk : ":1\r\n";
}

std::string ModelValkey::flush() {
    for (int database = 0; database < kDatabases; ++database) {
        for (const auto& [name, stored] : databases_[static_cast<size_t>(database)]) {
            note_expiry({database, name});
            touched_.insert({database, name});
        }
        databases_[static_cast<size_t>(database)].clear();
    }
    tell_all_of_everything();
    return kOk;
}

std::string ModelValkey::swap() {
    count("swapdb", 1);
    for (int database = 0; database < kDatabases; ++database) {
        for (const auto& [name, stored] : databases_[static_cast<size_t>(database)]) {
            note_expiry({database, name});
            touched_.insert({0, name});
            touched_.insert({1, name});
        }
    }
    is_silent_ = true;
    std::swap(databases_[0], databases_[1]);
    for (Database& database : databases_) {
        for (auto& [name, stored] : database)
            stored.since_us = events_.now_us;
    }
    return kOk;
}

void ModelValkey::note_change(const KeyName& key) {
    for (const auto& [id, client] : clients_) {
        if (client->watched.contains(key)) client->is_dirty = true;
    }
}

}  // namespace nearkey::simulation
