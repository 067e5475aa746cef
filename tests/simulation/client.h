// A client of one nearkey: sends what its seed says, and has every answer judged.
// Owned by the world. Its stream takes what the session writes; what it sends next it decides
// later.
#pragma once

#include "model_valkey.h"
#include "nearkey/session/session.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace nearkey::simulation {

class Judge {
public:
    virtual void on_violation(const std::string& what, const KeyName& key) = 0;
    virtual void on_answer(const std::string& line) = 0;

protected:
    ~Judge() = default;
};

struct ClientPlan {
    int channel;
    int protocol;
    int database;
    uint64_t pause_max_us;
    uint64_t bound_us;  // how old what it is shown may be
    uint64_t writes_one_in;
};

class SimulatedClient {
public:
    SimulatedClient(EventQueue& events, Random& random, ModelValkey& valkey, Judge& judge);
    ~SimulatedClient();

    void start(SessionContext& context, const ClientPlan& plan);
    bool is_of(const Session& session) const { return session_.get() == &session; }
    void on_ended();
    void abort();

    uint64_t operations = 0;

private:
    class Stream;
    struct Ask {
        KeyName key;
        History::Floor floor;
    };
    // What is to be done with a reply.
    struct Owed {
        std::string name;  // of the command
        Words words;
        uint64_t start_us;
        std::vector<Ask> asks;
        std::vector<std::string> writes;  // commands that were executed if this is no error
    };

    void open();
    void act();
    void send_batch();
    void plan_operation(std::string& bytes);
    void plan_read(std::string& bytes);
    void plan_write(std::string& bytes);
    void plan_transaction(std::string& bytes);
    Words random_read(std::vector<KeyName>& keys);
    Words random_write();
    Owed& add(std::string& bytes, const Words& words);
    void ask(Owed& owed, const KeyName& key);
    void deliver();
    void take(std::string_view bytes);
    void judge_reply(std::string_view reply);
    void judge_states(const Owed& owed, const std::vector<State>& states);
    void acknowledge(const Owed& owed);

    EventQueue& events_;
    Random& random_;
    ModelValkey& valkey_;
    Judge& judge_;
    SessionContext* context_ = nullptr;
    const ClientTerms terms_{};
    ClientPlan plan_{};
    std::unique_ptr<Session> session_;
    uint64_t number_ = 0;  // of the session, in the whole world
    bool is_closing_ = false;
    bool has_ended_ = false;
    bool is_ready_ = false;    // in its database
    bool must_close_ = false;  // and can't come there
    bool is_paused_ = false;
    std::string unread_;  // by the session
    std::string reply_;
    ReplyScanner scanner_;
    std::deque<Owed> owed_;
};

// The last ones are changed only directly, and each is read by clients of one protocol and
// database: of what one connection was not told, none was.
constexpr uint64_t kNames = 12;
constexpr uint64_t kNamesWritten = 8;
std::string name_of_key(uint64_t number);
std::string next_value(Random& random, const std::string& key);

}  // namespace nearkey::simulation
