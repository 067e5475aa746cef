// What a connection is for, who uses it and on what terms.
// Kept by the lists that own the connection (connections.h) and by the trial of another upstream;
// the terms of a lease by the session that has it.
#pragma once

#include "nearkey/base/check.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

// The owner of a connection that is not shared.
class ConnectionOwner {
public:
    // A piece of the server's bytes in a tunnel; valid during the call.
    virtual void on_tunnel_bytes(std::string_view bytes) = 0;
    // Answers UpstreamTunnel::tell_of_room().
    virtual void on_tunnel_room() = 0;
    // It was ready; requests in flight have been told of already.
    virtual void on_connection_lost() = 0;
    // Another server is the primary: the connection is given up when this returns, unless the owner
    // has given it back.
    virtual void on_failover() {}

protected:
    ~ConnectionOwner() = default;
};

// The names by which the server knows a client.
struct ClientIdentity {
    std::string name;
    std::string library;
    std::string library_version;

    bool operator==(const ClientIdentity&) const = default;
};

// The fate of requests that wait for a connection that Valkey refuses to set up.
enum class WhenRefused : uint8_t {
    Fail,        // it gets the server's words
    Wait,        // if they are BUSY, which passes: Valkey itself would take it meanwhile
    WaitOrTell,  // the same; and it fails at once where nearkey's own password is refused
};

class ConnectionUse {
public:
    enum class Role : uint8_t {
        Shared,   // of many sessions; or kept for the next lease
        Primary,  // the shared one that must exist: it dials again whatever was refused
        Leased,   // of one session, or dialled for the next that asks
    };

    void set_role(Role role) { role_ = role; }
    bool is_primary() const { return role_ == Role::Primary; }
    bool is_leased() const { return role_ == Role::Leased; }

    void add_user() { ++users_; }
    // REQUIRES: it has a user.
    void remove_user(uint64_t now_ms) {
        NEARKEY_CHECK(users_ > 0);
        if (--users_ == 0) unused_since_ms_ = now_ms;
    }
    // It has no user yet, from now on.
    void note_unused(uint64_t now_ms) { unused_since_ms_ = now_ms; }
    // The time when a retired one is given up.
    void give_up_at(uint64_t until_ms) { until_ms_ = until_ms; }
    bool is_over(uint64_t now_ms) const { return until_ms_ <= now_ms; }
    size_t users() const { return users_; }
    bool is_used() const { return users_ > 0; }
    // REQUIRES: it is not used.
    uint64_t unused_since_ms() const { return unused_since_ms_; }

    // --- the session that leases it ---
    // Null: nobody's.
    void set_owner(ConnectionOwner* owner) { owner_ = owner; }
    ConnectionOwner* owner() const { return owner_; }
    void set_when_refused(WhenRefused when_refused) { when_refused_ = when_refused; }
    WhenRefused when_refused() const { return when_refused_; }
    // As told to the server.
    void set_identity(const ClientIdentity& identity) { identity_ = identity; }
    const ClientIdentity& identity() const { return identity_; }

private:
    Role role_ = Role::Shared;
    size_t users_ = 0;
    uint64_t unused_since_ms_ = 0;
    uint64_t until_ms_ = UINT64_MAX;
    ConnectionOwner* owner_ = nullptr;
    WhenRefused when_refused_ = WhenRefused::Fail;
    ClientIdentity identity_;
};

}  // namespace nearkey
