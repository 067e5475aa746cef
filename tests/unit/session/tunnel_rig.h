// One client whose session is in a tunnel already, and what its server has said to it: a SessionRig
// for the cases that begin there.
#pragma once

#include "session_rig.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey {

inline const std::string kSubscribed = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
inline const std::string kMessage = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";

// A client in a tunnel that has said and heard nothing but SUBSCRIBE a.
struct TunnelRig : SessionRig {
    FakeClient& make_tunnel() {
        valkey.answers["SUBSCRIBE a"] = kSubscribed;
        FakeClient& client = make_ready();
        client.ask({"SUBSCRIBE a"});
        REQUIRE(run_until_output(client, kSubscribed));
        peer = valkey.peer_of("SUBSCRIBE a");
        CHECK(peer != 0);
        CHECK(metrics.upstream_tunnels == 1);
        client.socket.written.clear();
        return client;
    }
    size_t peer = 0;
};

}  // namespace nearkey
