#include "network.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <vector>

namespace nearkey::simulation {

namespace {
Network* the_network = nullptr;  // style-ok(globals): sockets find it as they find the system's
}

Network::Network(EventQueue& events, Random& random) : events_(events), random_(random) {
    the_network = this;
}

Network::~Network() {
    the_network = nullptr;
}

Network& Network::current() {
    return *the_network;
}

uint64_t Network::pick_delay() {
    switch (random_.below(8)) {
        case 0:
            return random_.between(1, 20);
        case 1:
            return random_.between(2'000, 20'000);
        default:
            return random_.between(20, 2'000);
    }
}

uint64_t Network::connect(Endpoint& endpoint, const std::string& name, const void* loop) {
    const uint64_t id = ++last_link_;
    Link& link = links_[id];
    link.host = &hosts.at(name);
    link.client = &endpoint;
    link.heard_us = &heard_us_[loop];
    link.up.delay_us = pick_delay();
    link.down.delay_us = pick_delay();
    events_.after(link.up.delay_us + link.down.delay_us, [this, id] {
        Link& connecting = links_[id];
        if (connecting.client == nullptr) return;
        if (connecting.host->is_down) {
            connecting.client->on_lost("Connection refused");
            return;
        }
        connecting.is_open = true;
        connecting.host->server->on_accepted(id);
        connecting.client->on_connected();
    });
    return id;
}

void Network::send(uint64_t id, std::string_view bytes) {
    push(id, true, bytes, false);
}

void Network::pause(uint64_t id, bool is_paused) {
    links_[id].is_paused = is_paused;
    if (!is_paused) arm(id, false);
}

void Network::finish(uint64_t id) {
    push(id, true, {}, true);
}

// What was sent may still arrive, or its end may be lost with the connection.
void Network::close(uint64_t id) {
    Link& link = links_[id];
    link.client = nullptr;
    link.down.chunks.clear();
    if (!link.is_open) return;
    if (random_.one_in(3)) link.up.chunks.clear();
    finish(id);
}

void Network::reply(uint64_t id, std::string_view bytes) {
    if (links_[id].is_open) push(id, false, bytes, false);
}

void Network::leave(uint64_t id) {
    Link& link = links_[id];
    if (!link.is_open) return;
    link.is_open = false;
    link.up.chunks.clear();
    link.host->server->on_closed(id);
    push(id, false, {}, true);
}

void Network::hang_up(uint64_t id) {
    Link& link = links_[id];
    if (link.is_open && random_.one_in(2)) link.down.chunks.clear();
    leave(id);
}

void Network::push(uint64_t id, bool is_up, std::string_view bytes, bool is_end) {
    Link& link = links_[id];
    Direction& direction = is_up ? link.up : link.down;
    if (direction.has_ended) return;
    direction.has_ended = is_end;
    uint64_t due = std::max(events_.now_us + direction.delay_us, direction.last_due_us);
    while (!bytes.empty()) {
        const size_t size = random_.one_in(4)
                                ? std::min(bytes.size(), size_t{1} + random_.below(40))
                                : bytes.size();
        direction.chunks.push_back({due, std::string(bytes.substr(0, size)), false});
        bytes.remove_prefix(size);
        if (random_.one_in(2)) due += random_.below(direction.delay_us + 1);
    }
    if (is_end) direction.chunks.push_back({due, {}, true});
    direction.last_due_us = due;
    arm(id, is_up);
}

uint64_t Network::held_until(const Link& link, bool is_up) {
    return is_up ? std::max(link.up.frozen_until_us, link.host->frozen_until_us)
                 : link.down.frozen_until_us;
}

void Network::arm(uint64_t id, bool is_up) {
    const Link& link = links_[id];
    Direction& direction = is_up ? links_[id].up : links_[id].down;
    if (direction.is_armed || direction.chunks.empty()) return;
    direction.is_armed = true;
    events_.at(std::max(direction.chunks.front().due_us, held_until(link, is_up)),
               [this, id, is_up] { deliver(id, is_up); });
}

void Network::deliver(uint64_t id, bool is_up) {
    Link& link = links_[id];
    Direction& direction = is_up ? link.up : link.down;
    direction.is_armed = false;
    if (!is_up && link.is_paused) return;
    if (direction.chunks.empty()) return;
    if (std::max(direction.chunks.front().due_us, held_until(link, is_up)) > events_.now_us) {
        arm(id, is_up);
        return;
    }
    const Chunk chunk = std::move(direction.chunks.front());
    direction.chunks.pop_front();
    if (is_up && link.is_open) {
        if (!chunk.is_end) {
            link.host->server->on_bytes(id, chunk.bytes);
        } else {
            hang_up(id);
        }
    } else if (!is_up && link.client != nullptr) {
        if (!chunk.is_end) {
            *link.heard_us = events_.now_us;
            link.client->on_bytes(chunk.bytes);
        } else {
            link.client->on_lost("Server closed the connection");
        }
    }
    arm(id, is_up);
}

uint64_t Network::any_open() {
    std::vector<uint64_t> open;
    for (const auto& [id, link] : links_) {
        if (link.is_open && link.client != nullptr) open.push_back(id);
    }
    return open.empty() ? 0 : open[random_.below(open.size())];
}

uint64_t Network::freeze_any(uint64_t until_us) {
    const uint64_t id = any_open();
    if (id == 0) return 0;
    Link& link = links_[id];
    const uint64_t which = random_.below(3);
    if (which != 0) link.up.frozen_until_us = until_us;
    if (which != 1) link.down.frozen_until_us = until_us;
    return id;
}

void Network::kill_any() {
    if (const uint64_t id = any_open(); id != 0) hang_up(id);
}

uint64_t Network::kill_quietly(uint64_t until_us) {
    const uint64_t id = any_open();
    if (id == 0) return 0;
    links_[id].down.frozen_until_us = until_us;
    hang_up(id);
    return id;
}

void Network::kill_all() {
    for (auto& [id, link] : links_)
        hang_up(id);
}

void Network::kill_all_of(const std::string& name) {
    for (auto& [id, link] : links_) {
        if (link.host == &hosts.at(name)) hang_up(id);
    }
}

void Network::leave_all_of(const std::string& name) {
    for (auto& [id, link] : links_) {
        if (link.host == &hosts.at(name)) leave(id);
    }
}

void Network::slow_down(uint64_t id, uint64_t delay_us) {
    links_[id].down.delay_us = delay_us;
}

void Network::slow_down_requests(uint64_t id, uint64_t delay_us) {
    links_[id].up.delay_us = delay_us;
}

void Network::slow_down_any(uint64_t delay_us) {
    if (const uint64_t id = any_open(); id != 0) slow_down(id, delay_us);
}

void Network::change_delays() {
    for (auto& [id, link] : links_) {
        if (random_.one_in(2)) link.up.delay_us = pick_delay();
        if (random_.one_in(2)) link.down.delay_us = pick_delay();
    }
}

}  // namespace nearkey::simulation
