#include "client.h"

#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
constexpr size_t kOwedMax = 16;
constexpr uint64_t kBatchMax = 6;

void encode(std::string& out, const Words& words) {
    append_array_header(out, words.size());
    for (const std::string& word : words)
        append_bulk(out, word);
}

State state_of(const Value& value) {
    return value.is_null() ? State() : State(value.text);
}

std::vector<State> states_of(const std::string& command, const Value& value) {
    if (command == "GETRANGE") return {value.text.empty() ? State() : State(value.text)};
    if (command == "HGETALL") {
        return {value.elements.size() == 2 ? State(value.elements[1].text) : State()};
    }
    if (command == "HSCAN" && value.elements.size() == 2)
        return states_of("HGETALL", value.elements[1]);
    if (command == "EXEC") {
        return value.elements.size() == 2 ? std::vector{state_of(value.elements[1])}
                                          : std::vector<State>{};
    }
    if (command != "MGET") return {state_of(value)};
    std::vector<State> states;
    for (const Value& each : value.elements)
        states.push_back(state_of(each));
    return states;
}
}  // namespace

// The odd ones are hashes.
std::string name_of_key(uint64_t number) {
    return (number % 2 == 0 ? "s" : "h") + std::to_string(number);
}

std::string next_value(Random& random, const std::string& key) {
    return fmt::format("{}={:x}{}", key, random.below(UINT64_MAX),
                       std::string(random.one_in(3) ? 60 : 0, '.'));
}

class SimulatedClient::Stream final : public ByteStream {
public:
    explicit Stream(SimulatedClient& client) : client_(client) {}
    WriteResult write(std::string_view bytes, size_t& written) override {
        written = 0;
        if (client_.is_closing_) return WriteResult::Lost;
        written = client_.random_.one_in(20) ? client_.random_.below(bytes.size()) : bytes.size();
        client_.take(bytes.substr(0, written));
        if (written == bytes.size()) return WriteResult::Ok;
        const uint64_t number = client_.number_;
        SimulatedClient& client = client_;
        client.events_.after(client.random_.below(2'000), [&client, number] {
            if (client.number_ == number && client.session_) client.session_->on_writable();
        });
        return WriteResult::WouldBlock;
    }
    void pause_reading() override { client_.is_paused_ = true; }
    bool refuse_more() override { return false; }
    int fd() const override { return -1; }
    void resume_reading() override {
        client_.is_paused_ = false;
        SimulatedClient& client = client_;
        client.events_.after(0, [&client] { client.deliver(); });
    }

private:
    SimulatedClient& client_;
};

SimulatedClient::SimulatedClient(EventQueue& events, Random& random, ModelValkey& valkey,
                                 Judge& judge)
    : events_(events), random_(random), valkey_(valkey), judge_(judge) {
}

SimulatedClient::~SimulatedClient() {
    abort();
}

void SimulatedClient::start(SessionContext& context, const ClientPlan& plan) {
    context_ = &context;
    plan_ = plan;
    act();
}

void SimulatedClient::abort() {
    if (session_ && !has_ended_) session_->abort();
}

void SimulatedClient::open() {
    number_ = valkey_.next_session();
    is_closing_ = is_paused_ = has_ended_ = is_ready_ = false;
    must_close_ = false;
    unread_.clear();
    reply_.clear();
    scanner_ = {};
    session_ = std::make_unique<Session>(*context_, terms_, number_);
    session_->attach(std::make_unique<Stream>(*this));
    add(unread_, {"HELLO", std::to_string(plan_.protocol)});
    add(unread_, {"SELECT", std::to_string(plan_.database)});
    deliver();
}

void SimulatedClient::on_ended() {
    is_closing_ = has_ended_ = true;
    owed_.clear();
    events_.after(random_.below(2'000), [this] { session_.reset(); });
}

void SimulatedClient::act() {
    events_.after(random_.between(10, plan_.pause_max_us), [this] { act(); });
    if (!session_) {
        open();
    } else if (!is_closing_ && (must_close_ || random_.one_in(400))) {
        is_closing_ = true;
        owed_.clear();
        session_->on_stream_lost();
    } else if (!is_closing_ && is_ready_ && owed_.size() < kOwedMax) {
        send_batch();
    }
}

void SimulatedClient::send_batch() {
    const uint64_t count = random_.one_in(2) ? 1 : random_.between(1, kBatchMax);
    for (uint64_t i = 0; i < count; ++i)
        plan_operation(unread_);
    deliver();
}

void SimulatedClient::deliver() {
    while (session_ && !is_closing_ && !is_paused_ && !unread_.empty()) {
        const size_t size =
            random_.one_in(8) ? size_t{1} + random_.below(unread_.size()) : unread_.size();
        const std::string bytes = unread_.substr(0, size);
        unread_.erase(0, size);
        session_->on_bytes(bytes);
    }
}

// --- what is sent ---

void SimulatedClient::plan_operation(std::string& bytes) {
    ++operations;
    if (!random_.one_in(plan_.writes_one_in)) {
        plan_read(bytes);
    } else if (random_.one_in(8)) {
        plan_transaction(bytes);
    } else {
        plan_write(bytes);
    }
}

SimulatedClient::Owed& SimulatedClient::add(std::string& bytes, const Words& words) {
    encode(bytes, words);
    owed_.push_back({words[0], words, events_.now_us, {}, {}});
    return owed_.back();
}

void SimulatedClient::ask(Owed& owed, const KeyName& key) {
    valkey_.note_expiry(key);
    const uint64_t before_us =
        events_.now_us < plan_.bound_us ? 0 : events_.now_us - plan_.bound_us;
    owed.asks.push_back({key, valkey_.history.floor(plan_.channel, key, before_us)});
}

Words SimulatedClient::random_read(std::vector<KeyName>& keys) {
    uint64_t number = random_.below(random_.one_in(2) ? 4 : kNames);
    if (number >= kNamesWritten) {
        const auto database = static_cast<uint64_t>(plan_.database);
        number = kNamesWritten + 2 * database + (plan_.protocol == 3 ? 1 : 0);
    }
    const std::string name = name_of_key(number);
    keys.assign(1, {plan_.database, name});
    const uint64_t choice = random_.below(10);
    if (number % 2 == 1) {
        if (choice < 6) return {"HGET", name, "f"};
        // HSCAN is never stored.
        return choice < 8 ? Words{"HGETALL", name} : Words{"HSCAN", name, "0"};
    }
    if (choice < 7) return {"GET", name};
    if (choice < 8) return {"GETRANGE", name, "0", "-1"};
    const std::string other = name_of_key(random_.below(kNamesWritten / 2) * 2);
    keys.emplace_back(plan_.database, other);
    return {"MGET", name, other};
}

void SimulatedClient::plan_read(std::string& bytes) {
    std::vector<KeyName> keys;
    Owed& owed = add(bytes, random_read(keys));
    for (const KeyName& key : keys)
        ask(owed, key);
}

Words SimulatedClient::random_write() {
    const uint64_t number = random_.below(kNamesWritten);
    const std::string name = name_of_key(number);
    const std::string value = next_value(random_, name);
    const bool is_hash = number % 2 == 1;
    const Words put = is_hash ? Words{"HSET", name, "f", value} : Words{"SET", name, value};
    switch (random_.below(60)) {
        case 0:
            return {random_.one_in(4) ? "FLUSHALL" : "TOUCH", name};
        case 1:
            return random_.one_in(3) ? Words{"SWAPDB", "0", "1"} : put;
        case 2:
        case 3:
            return {"EVAL", is_hash ? "HSET" : "SET", "0", name, value};
        case 4:
        case 5:
        case 6:
            return {"DEL", name};
        case 7:
        case 8:
            return {"RENAME", name, name_of_key((number + 2) % kNamesWritten)};
        case 9:
        case 10:
            return {"COPY", name, name_of_key((number + 2) % kNamesWritten), "REPLACE"};
        case 11:
        case 12:
            return {"PEXPIRE", name, std::to_string(random_.between(1, 300))};
        case 13:
        case 14:
        case 15:
        case 16:
            if (is_hash) return put;
            return {"SET", name, value, "PX", std::to_string(random_.between(1, 300))};
        default:
            return put;
    }
}

void SimulatedClient::plan_write(std::string& bytes) {
    Words words = random_write();
    if (words[0] == "FLUSHALL") words.resize(1);
    Owed& owed = add(bytes, words);
    if (words[0] != "TOUCH") owed.writes.push_back(joined(plan_.database, words));
}

void SimulatedClient::plan_transaction(std::string& bytes) {
    const std::string name = name_of_key(random_.below(kNamesWritten / 2) * 2);
    const std::string other = name_of_key(random_.below(kNamesWritten / 2) * 2);
    const Words put{"SET", name, next_value(random_, name)};
    add(bytes, {"MULTI"});
    add(bytes, put);
    add(bytes, {"GET", other}).name = "QUEUED";
    Owed& owed = add(bytes, {"EXEC"});
    owed.writes.push_back(joined(plan_.database, put));
    ask(owed, {plan_.database, other});
}

// --- what is answered ---

void SimulatedClient::take(std::string_view bytes) {
    while (!bytes.empty()) {
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            judge_.on_violation("MALFORMED", {});
            return;
        }
        reply_ += bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        if (result == ScanResult::Incomplete) return;
        judge_reply(std::exchange(reply_, {}));
    }
}

void SimulatedClient::judge_reply(std::string_view reply) {
    if (owed_.empty()) {
        judge_.on_violation("UNASKED " + std::string(reply), {});
        return;
    }
    const Owed owed = std::move(owed_.front());
    owed_.pop_front();
    judge_.on_answer(fmt::format("{} us {}/{} [{} us] {} -> {}", events_.now_us, plan_.channel,
                                 number_, owed.start_us, joined(plan_.database, owed.words),
                                 reply.substr(0, reply.size() - 2)));
    const auto value = parse_value(reply);
    // What follows would be of another database.
    if (owed.name == "SELECT") (value && value->text == "OK" ? is_ready_ : must_close_) = true;
    if (!value || value->is_error() || (owed.name == "EXEC" && value->is_null())) return;
    // There was nothing to be copied, or to expire.
    const bool is_idle = (owed.name == "COPY" || owed.name == "PEXPIRE") && value->integer == 0;
    if (!is_idle) acknowledge(owed);
    if (!owed.asks.empty()) judge_states(owed, states_of(owed.name, *value));
}

void SimulatedClient::acknowledge(const Owed& owed) {
    for (const std::string& write : owed.writes) {
        for (const auto& [key, step] : valkey_.steps_of(write, owed.start_us)) {
            valkey_.note_expiry(key);
            valkey_.history.acknowledge(plan_.channel, key, step, events_.now_us);
            valkey_.history.did(number_, key, step);
        }
    }
}

void SimulatedClient::judge_states(const Owed& owed, const std::vector<State>& states) {
    if (states.size() != owed.asks.size()) {
        judge_.on_violation("SHAPE of the reply to " + joined(plan_.database, owed.words), {});
        return;
    }
    for (size_t i = 0; i < states.size(); ++i) {
        const Ask& each = owed.asks[i];
        valkey_.note_expiry(each.key);
        const auto verdict = valkey_.history.judge(number_, each.key, each.floor, states[i]);
        if (verdict == History::Verdict::Fine) continue;
        judge_.on_violation(
            fmt::format(
                "{} {}/{}: {}/{} by {}, asked at {} us, answered at {} us: {} (own step {}, "
                "elsewhere step {})",
                nearkey::simulation::name_of(verdict), each.key.first, each.key.second,
                plan_.channel, number_, owed.name, owed.start_us, events_.now_us,
                text_of(states[i]), each.floor.own, each.floor.elsewhere),
            each.key);
    }
}

}  // namespace nearkey::simulation
