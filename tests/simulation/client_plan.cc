// What a client sends.
#include "client.h"
#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
constexpr uint64_t kBatchMax = 6;
constexpr size_t kStepsMax = 6;

void encode(std::string& out, const Words& words) {
    append_array_header(out, words.size());
    for (const std::string& word : words)
        append_bulk(out, word);
}

bool is_hash(uint64_t number) {
    return number % 2 == 1;
}
}  // namespace

std::string name_of_key(uint64_t number, uint64_t tags) {
    const char* const type = number >= kNames ? "l" : is_hash(number) ? "h" : "s";
    const std::string name = type + std::to_string(number);
    if (tags == 0) return name;
    return fmt::format("{}{{{}}}", name, static_cast<char>('a' + number % tags));
}

std::string next_value(Random& random, const std::string& key) {
    return fmt::format("{}={:x}{}", key, random.below(UINT64_MAX),
                       std::string(random.one_in(3) ? 60 : 0, '.'));
}

void SimulatedClient::act() {
    events_.after(random_.between(10, plan_.pause_max_us), [this] { act(); });
    if (!session_) {
        open();
    } else if (!is_closing_ && (must_close_ || random_.one_in(400))) {
        is_closing_ = true;
        owed_.clear();
        session_->on_stream_lost();
    } else if (!is_closing_ && is_ready_ && owed_.size() < plan_.owed_max) {
        send_batch();
    }
}

void SimulatedClient::send_batch() {
    const uint64_t most = std::min(plan_.owed_max, kBatchMax);
    const uint64_t count = random_.one_in(2) ? 1 : random_.between(1, most);
    for (uint64_t i = 0; i < count; ++i) {
        if (!plan_operation(unread_)) break;
    }
    deliver();
}

bool SimulatedClient::plan_operation(std::string& bytes) {
    ++operations;
    if (plan_.is_quiet) {
        const uint64_t number = random_.below(plan_.hot_names);
        const bool is_odd = plan_.odd_reads_one_in > 0 && random_.one_in(plan_.odd_reads_one_in);
        add(bytes, is_odd ? random_read_of(number) : plain_read_of(number));
    } else if (in_multi_) {
        plan_step(bytes);
    } else if (random_.one_in(is_through_ ? 4 : is_away() ? 8 : plan_.ways_one_in)) {
        return plan_way(bytes);
    } else if (!random_.one_in(plan_.writes_one_in)) {
        plan_read(bytes);
    } else {
        plan_write(bytes);
    }
    return true;
}

SimulatedClient::Owed& SimulatedClient::add(std::string& bytes, Asked asked) {
    encode(bytes, asked.words);
    for (const char* const way : {"SELECT", "HELLO", "RESET", "CLIENT"})
        has_changed_way_ |= asked.words[0] == way;
    owed_.push_back({.asked = std::move(asked),
                     .start_us = events_.now_us,
                     .flight_us = owed_.empty() ? events_.now_us : owed_.back().flight_us,
                     .turns = plan_.upstream.turns,
                     .reign = plan_.upstream.reign,
                     .is_doubted = plan_.upstream.is_silent(),
                     .database = database_,
                     .is_judged = !must_close_,
                     .is_queued = in_multi_,
                     .is_through = is_through_,
                     .queued = {}});
    return owed_.back();
}

SimulatedClient::Owed& SimulatedClient::add_plain(std::string& bytes, Words words) {
    return add(bytes, {std::move(words), {}, {}});
}

// --- changes of way ---

bool SimulatedClient::plan_way(std::string& bytes) {
    const Kinds& kinds = plan_.kinds;
    if (database_ != plan_.database && random_.one_in(2)) {
        database_ = plan_.database;
        is_ready_ = false;
        add_plain(bytes, {"SELECT", std::to_string(database_)});
        return false;
    }
    const uint64_t choice = random_.below(protocol_ != plan_.protocol ? 1 : 8);
    if (choice >= 6) {
        plan_whole(bytes);
        return true;
    }
    if (choice == 0 && kinds.has(Kind::Hello)) {
        protocol_ = protocol_ == plan_.protocol ? 5 - protocol_ : plan_.protocol;
        add_plain(bytes, {"HELLO", std::to_string(protocol_)});
    } else if (choice <= 2 && kinds.has(Kind::Select)) {
        database_ = 1 - database_;
        is_ready_ = false;
        add_plain(bytes, {"SELECT", std::to_string(database_)});
        return false;
    } else if (choice <= 3 && kinds.has(Kind::Tunnels)) {
        if (is_through_) {
            plan_reset(bytes);
        } else {
            is_through_ = true;
            add_plain(bytes, {"CLIENT", "REPLY", "ON"});
        }
    } else if (kinds.has(Kind::Steps)) {
        begin_steps(bytes);
        return random_.one_in(4);
    } else {
        plan_read(bytes);
    }
    return true;
}

// The home of whoever has reset is RESP2 and database 0, until it asks for another.
void SimulatedClient::plan_reset(std::string& bytes) {
    is_through_ = false;
    protocol_ = 2;
    database_ = 0;
    in_multi_ = false;
    queued_.clear();
    add_plain(bytes, {"RESET"});
    if (random_.one_in(2)) plan_read(bytes);
    if (random_.one_in(2)) return;
    protocol_ = plan_.protocol;
    add_plain(bytes, {"HELLO", std::to_string(protocol_)});
}

// --- transactions ---

void SimulatedClient::plan_whole(std::string& bytes) {
    const std::string name = name_of(random_written() / 2 * 2);
    add_plain(bytes, {"MULTI"});
    in_multi_ = true;
    const auto queue = [&](Asked each) {
        queued_.push_back(each);
        add(bytes, std::move(each));
    };
    if (random_.one_in(2)) queue(written({"SET", name, next_value(random_, name)}));
    queue(random_read());
    plan_exec(bytes);
}

void SimulatedClient::begin_steps(std::string& bytes) {
    if (random_.one_in(3)) add_plain(bytes, {"WATCH", name_of(random_written())});
    add_plain(bytes, {"MULTI"});
    in_multi_ = true;
    // One that reads waits for a proof, whatever it writes.
    constexpr uint64_t kWritesOneIn[] = {1, 3, 1000};
    writes_of_steps_ = kWritesOneIn[random_.below(3)];
}

void SimulatedClient::plan_step(std::string& bytes) {
    if (queued_.size() >= kStepsMax || random_.one_in(4)) {
        plan_exec(bytes);
        return;
    }
    if (random_.one_in(20)) {
        in_multi_ = false;
        queued_.clear();
        add_plain(bytes, {"DISCARD"});
        return;
    }
    Asked each = random_.one_in(writes_of_steps_) ? written(random_write()) : random_read();
    queued_.push_back(each);
    add(bytes, std::move(each));
}

// What it shows can't be older than what was there when EXEC was sent.
void SimulatedClient::plan_exec(std::string& bytes) {
    in_multi_ = false;
    for (Asked& each : queued_)
        ask(each);
    add_plain(bytes, {"EXEC"}).queued = std::exchange(queued_, {});
}

// --- reads ---

SimulatedClient::Asked SimulatedClient::asked(const Words& words,
                                              const std::vector<std::string>& names) const {
    Asked asked{words, {}, {}};
    for (const std::string& name : names)
        asked.asks.push_back({{database_, name}});
    ask(asked);
    return asked;
}

void SimulatedClient::ask(Asked& asked) const {
    const uint64_t now_us = events_.now_us;
    const uint64_t before_us = now_us < plan_.bound_us ? 0 : now_us - plan_.bound_us;
    ClusterOracle* const cluster = plan_.upstream.cluster;
    for (Ask& each : asked.asks) {
        each.reign = cluster != nullptr ? &cluster->oldest_shown(each.key) : plan_.upstream.reign;
        each.floors.clear();
        for (Reign* reign = each.reign; reign != nullptr; reign = reign->next.get()) {
            note_expiry(*reign, each.key);
            each.floors.push_back(reign->history.floor(plan_.channel, each.key, before_us, now_us));
        }
    }
}

void SimulatedClient::plan_read(std::string& bytes) {
    add(bytes, random_read());
}

SimulatedClient::Asked SimulatedClient::random_read() {
    if (plan_.kinds.has(Kind::Keyspace) && random_.one_in(40)) return random_read_of_all();
    if (plan_.kinds.has(Kind::Blocking) && random_.one_in(12))
        return random_read_of(kNames + random_.below(kLists));
    uint64_t number = random_.below(random_.one_in(2) ? plan_.hot_names : kNames);
    if (number >= kNamesWritten) {
        const auto database = static_cast<uint64_t>(database_);
        number = kNamesWritten + 2 * database + (protocol_ == 3 ? 1 : 0);
    }
    return random_read_of(number);
}

SimulatedClient::Asked SimulatedClient::random_read_of(uint64_t number) {
    const std::string name = name_of(number);
    if (number >= kNames) return asked({"LRANGE", name, "0", "-1"}, {name});
    if (plan_.kinds.has(Kind::Scripts) && random_.one_in(30)) {
        const std::string what = is_hash(number) ? "HGET" : "GET";
        const std::string other = name_of(random_.below(kNamesWritten));
        if (plan_.upstream.cluster != nullptr)
            return asked({random_.one_in(2) ? "EVAL" : "EVAL_RO", what, "1", name, name}, {name});
        if (random_.one_in(4)) return asked({"EVAL", what, "0", name}, {name});
        if (random_.one_in(2)) return asked({"EVAL_RO", what, "0", name}, {name});
        const bool is_named = !plan_.kinds.has(Kind::Undeclared);
        return asked({"EVAL_RO", what, "1", is_named ? name : other, name}, {name});
    }
    // Most are the same, and so find what is stored.
    if (random_.one_in(2)) return plain_read_of(number);
    const uint64_t choice = random_.below(12);
    if (choice == 10) return asked({"EXISTS", name}, {name});
    if (choice == 11) {
        const std::string other = name_of(random_.below(kNamesWritten));
        return asked({"EXISTS", name, other}, {name, other});
    }
    if (is_hash(number)) {
        if (choice < 6) return asked({"HGET", name, "f"}, {name});
        // HSCAN is never stored.
        return asked(choice < 8 ? Words{"HGETALL", name} : Words{"HSCAN", name, "0"}, {name});
    }
    if (choice < 7) return plain_read_of(number);
    if (choice < 8) return asked({"GETRANGE", name, "0", "-1"}, {name});
    return asked_for_two(name);
}

SimulatedClient::Asked SimulatedClient::plain_read_of(uint64_t number) {
    const std::string name = name_of(number);
    if (number >= kNames) return asked({"LRANGE", name, "0", "-1"}, {name});
    if (is_hash(number)) return asked({"HGET", name, "f"}, {name});
    return plan_.likes_mget ? asked_for_two(name) : asked({"GET", name}, {name});
}

SimulatedClient::Asked SimulatedClient::asked_for_two(const std::string& name) {
    const std::string other = name_of(random_written() / 2 * 2);
    return asked({"MGET", name, other}, {name, other});
}

// Whoever was told of a key looks at it again, at once, and when it was to expire.
void SimulatedClient::look_again_after(const Asked& asked) {
    if (plan_.is_quiet) return;
    const Words& words = asked.words;
    const bool is_px = words.size() == 5 && words[0] == "SET";
    if (is_px || words[0] == "PEXPIRE") {
        const uint64_t ttl_us = std::stoull(is_px ? words[4] : words[2]) * 1000;
        const KeyName key{database_, words[1]};
        look_again(key, random_.below(ttl_us));
        // Its reply took some time, too.
        for (int i = 0; i < 2; ++i) {
            const uint64_t late_us = random_.below(60'000);
            if (ttl_us + late_us > 40'000) look_again(key, ttl_us + late_us - 40'000);
        }
    }
    if (!random_.one_in(2)) return;
    if (!asked.asks.empty()) {
        look_again(asked.asks[random_.below(asked.asks.size())].key, random_.below(2'000));
    } else if (!asked.writes.empty() && words.size() > 1 && !words[0].starts_with("EVAL") &&
               words[0] != "SWAPDB") {
        look_again({database_, words[1]}, random_.below(2'000));
    }
}

void SimulatedClient::look_again(const KeyName& key, uint64_t delay_us) {
    events_.after(delay_us, [this, key, session = number_] {
        if (session != number_ || !is_in(key) || in_multi_) return;
        ++operations;
        const uint64_t number = std::stoull(key.second.substr(1));
        add(unread_, random_.one_in(4) ? random_read_of(number) : plain_read_of(number));
        deliver();
    });
}

void SimulatedClient::peek(const KeyName& key, uint64_t delay_us) {
    events_.after(delay_us, [this, key] {
        if (is_in(key)) peek_now(std::stoull(key.second.substr(1)));
    });
}

// Ready to send a command of the key's database.
bool SimulatedClient::is_in(const KeyName& key) const {
    return session_ && !is_closing_ && is_ready_ && !must_close_ && key.first == database_ &&
           owed_.size() <= plan_.owed_max;
}

void SimulatedClient::peek_now(uint64_t number) {
    const Kinds& kinds = plan_.kinds;
    ++operations;
    const uint64_t choice = random_.below(6);
    if (in_multi_ || choice == 0) {
        if (!in_multi_) add_plain(unread_, {"MULTI"});
        in_multi_ = true;
        queued_.push_back(random_read_of(number));
        add(unread_, queued_.back());
        plan_exec(unread_);
    } else if (choice <= 2 && kinds.has(Kind::Steps)) {
        peek_by_steps(number);
    } else if (choice == 3 && kinds.has(Kind::Tunnels) && !is_through_) {
        is_through_ = true;
        add_plain(unread_, {"CLIENT", "REPLY", "ON"});
        add(unread_, random_read_of(number));
        const int database = database_;
        plan_reset(unread_);
        if (database == database_) add(unread_, plain_read_of(number));
    } else if (choice == 4 && kinds.has(Kind::Hello)) {
        add(unread_, random_read_of(number));
        protocol_ = 5 - protocol_;
        add_plain(unread_, {"HELLO", std::to_string(protocol_)});
        add(unread_, plain_read_of(number));
    } else {
        add(unread_, random_read_of(number));
        look_again({database_, name_of(number)}, random_.below(20'000));
    }
    deliver();
}

void SimulatedClient::peek_by_steps(uint64_t number) {
    add_plain(unread_, {"MULTI"});
    in_multi_ = true;
    const bool writes = random_.one_in(3) && number < kNamesWritten;
    events_.after(random_.below(3'000), [this, number, writes, session = number_] {
        if (session != number_ || !in_multi_ || is_closing_ || must_close_) return;
        queued_.push_back(writes ? written(plain_write(number)) : random_read_of(number));
        add(unread_, queued_.back());
        if (!writes) plan_exec(unread_);
        deliver();
    });
    if (!writes) return;
    events_.after(random_.between(3'000, 12'000), [this, session = number_] {
        if (session != number_ || !in_multi_ || is_closing_ || must_close_) return;
        plan_exec(unread_);
        deliver();
    });
}

SimulatedClient::Asked SimulatedClient::random_read_of_all() {
    if (random_.one_in(4)) return {{"DBSIZE"}, {}, {}};
    std::vector<std::string> all;
    for (uint64_t number = 0; number < kNames + kLists; ++number)
        all.push_back(name_of(number));
    return asked(random_.one_in(2) ? Words{"KEYS", "*"} : Words{"SCAN", "0", "COUNT", "1000"}, all);
}

// --- writes ---

SimulatedClient::Asked SimulatedClient::written(const Words& words) const {
    Asked asked{words, {}, {}};
    if (words[0] != "TOUCH") asked.writes.push_back(joined(database_, words));
    return asked;
}

uint64_t SimulatedClient::random_written() {
    return random_.below(random_.one_in(2) ? plan_.hot_names : kNamesWritten);
}

void SimulatedClient::plan_write(std::string& bytes) {
    add(bytes, written(random_write()));
}

Words SimulatedClient::random_list() {
    const std::string list = name_of(kNames + random_.below(kLists));
    if (random_.one_in(2)) return {"LPUSH", list, next_value(random_, list)};
    return {"BLPOP", list, fmt::format("0.{:03}", random_.between(1, 100))};
}

Words SimulatedClient::plain_write(uint64_t number) {
    const std::string name = name_of(number);
    const std::string value = next_value(random_, name);
    return is_hash(number) ? Words{"HSET", name, "f", value} : Words{"SET", name, value};
}

Words SimulatedClient::random_write() {
    if (plan_.kinds.has(Kind::Blocking) && random_.one_in(10)) return random_list();
    const uint64_t number = random_written();
    const std::string name = name_of(number);
    const Words put = plain_write(number);
    const std::string& value = put.back();
    if (plan_.upstream.cluster == nullptr && random_.one_in(plan_.swaps_one_in))
        return {"SWAPDB", "0", "1"};
    if (!is_hash(number) && random_.one_in(plan_.expiring_one_in))
        return {"SET", name, value, "PX", std::to_string(random_.between(1, 500))};
    switch (random_.below(56)) {
        case 0:
            if (!random_.one_in(4) || plan_.upstream.cluster != nullptr) return {"TOUCH", name};
            return {"FLUSHALL"};
        case 1:
        case 2:
        case 3:
            if (plan_.upstream.cluster != nullptr) return {"EVAL", put[0], "1", name, name, value};
            return {"EVAL", put[0], "0", name, value};
        case 4:
        case 5:
        case 6:
            return {"DEL", name};
        case 7:
        case 8:
            return {"RENAME", name, name_of((number + 2) % kNamesWritten)};
        case 9:
        case 10:
            return {"COPY", name, name_of((number + 2) % kNamesWritten), "REPLACE"};
        case 11:
        case 12:
            return {"PEXPIRE", name, std::to_string(random_.between(1, 500))};
        default:
            return put;
    }
}

}  // namespace nearkey::simulation
