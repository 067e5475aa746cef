// Byte pipes between connections and the model server. Within a direction bytes stay in order; each
// direction has its own delay, is cut anywhere, may stand still for a while and may end.
// Owned by the world.
#pragma once

#include "event_queue.h"

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>

namespace nearkey::simulation {

// The client's end of a link.
class Endpoint {
public:
    virtual void on_connected() = 0;
    virtual void on_bytes(std::string_view bytes) = 0;
    virtual void on_lost(const std::string& reason) = 0;

protected:
    ~Endpoint() = default;
};

// The server's end of all links.
class Server {
public:
    virtual void on_accepted(uint64_t link) = 0;
    virtual void on_bytes(uint64_t link, std::string_view bytes) = 0;
    virtual void on_closed(uint64_t link) = 0;

protected:
    ~Server() = default;
};

class Network {
public:
    Network(EventQueue& events, Random& random);
    ~Network();
    static Network& current();

    // The client's verbs. connect() is answered later. REQUIRES: a server has the name.
    // `loop`: any address that only the connections of one event loop have.
    uint64_t connect(Endpoint& endpoint, const std::string& name, const void* loop);
    void send(uint64_t link, std::string_view bytes);
    void pause(uint64_t link, bool is_paused);
    void finish(uint64_t link);
    void close(uint64_t link);

    // The server's.
    void reply(uint64_t link, std::string_view bytes);
    // What was said before arrives.
    void leave(uint64_t link);
    // It may be lost.
    void hang_up(uint64_t link);

    // Faults.
    // The link's number; 0: there is none.
    uint64_t freeze_any(uint64_t until_us);
    void kill_any();
    // The server's end is closed, the client learns it later; 0 as above.
    uint64_t kill_quietly(uint64_t until_us);
    void kill_all();
    void kill_all_of(const std::string& name);
    // What was said before arrives.
    void leave_all_of(const std::string& name);
    void change_delays();
    // What comes from the server is late by so much from now on.
    void slow_down(uint64_t link, uint64_t delay_us);
    void slow_down_requests(uint64_t link, uint64_t delay_us);
    void slow_down_any(uint64_t delay_us);

    struct Host {
        Server* server = nullptr;
        uint64_t frozen_until_us = 0;  // what is sent to it meanwhile waits in its sockets
        bool is_down = false;
    };
    std::map<std::string, Host> hosts;  // by name
    // When anything came last over a connection of that event loop.
    uint64_t heard_us(const void* loop) const {
        const auto found = heard_us_.find(loop);
        return found == heard_us_.end() ? 0 : found->second;
    }
    // Whether nothing happens there now.
    bool is_still(const std::string& name) const {
        const Host& host = hosts.at(name);
        return host.is_down || host.frozen_until_us > events_.now_us;
    }

private:
    struct Chunk {
        uint64_t due_us;
        std::string bytes;
        bool is_end;
    };
    struct Direction {
        std::deque<Chunk> chunks;
        uint64_t last_due_us = 0;
        uint64_t frozen_until_us = 0;
        uint64_t delay_us = 0;
        bool is_armed = false;
        bool has_ended = false;
    };
    struct Link {
        Host* host = nullptr;
        Endpoint* client = nullptr;  // null: closed there
        uint64_t* heard_us = nullptr;
        bool is_open = false;  // at the server
        bool is_paused = false;
        Direction up;
        Direction down;
    };

    void push(uint64_t id, bool is_up, std::string_view bytes, bool is_end);
    void arm(uint64_t id, bool is_up);
    void deliver(uint64_t id, bool is_up);
    static uint64_t held_until(const Link& link, bool is_up);
    uint64_t pick_delay();
    uint64_t any_open();

    EventQueue& events_;
    Random& random_;
    std::map<uint64_t, Link> links_;
    std::map<const void*, uint64_t> heard_us_;
    uint64_t last_link_ = 0;
};

}  // namespace nearkey::simulation
