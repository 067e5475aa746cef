#include "nearkey/upstream/advice.h"

#include <algorithm>
#include <array>

namespace nearkey {

namespace {

struct Advice {
    std::string_view part;  // of the reason
    std::string_view what_to_do;
};

// The first that fits counts.
constexpr auto kAdvice = std::to_array<Advice>({
    {"Connection refused", "start Valkey there, or correct upstream.url"},
    {"No such file or directory", "start Valkey there, or correct the path in upstream.url"},
    {"Permission denied",
     "give nearkey's user the right to that socket (unixsocketperm of Valkey)"},
    {"No route to host", "look at the network, or correct the host in upstream.url"},
    {"Network is unreachable", "look at the network, or correct the host in upstream.url"},
    {"unknown node or service", "correct the host in upstream.url, or look at this machine's DNS"},
    {"temporary failure", "look at this machine's DNS (/etc/resolv.conf)"},
    {"no answer from DNS", "look at this machine's DNS (/etc/resolv.conf)"},
    {"Too many open files", "raise LimitNOFILE= of the unit (ulimit -n)"},
    {"WRONGPASS", "correct the user and the password that nearkey has for Valkey"},
    {"NOAUTH",
     "give nearkey the user and the password of Valkey, as in valkey://user:password@host"},
    {"NOPERM", "allow nearkey's user this command (ACL SETUSER on Valkey)"},
    {"DB index is out of range",
     "correct the database in upstream.url, or raise Valkey's databases"},
    {"max number of clients", "raise Valkey's maxclients"},
    {"DENIED", "turn off Valkey's protected-mode there, or give it a password"},
    {"unknown command", "Valkey, or Redis 7.0, is needed there"},
    {"HTTP server", "correct upstream.url: it must name Valkey's own host and port"},
    {"TLS server", "write valkeys:// in upstream.url if it is Valkey's TLS port"},
    {"is not Valkey", "correct upstream.url: it must name Valkey's own host and port"},
    {"wrong version number", "write valkey:// in upstream.url if Valkey does not speak TLS there"},
    {"hostname mismatch", "set upstream.tls_server_name to a name in Valkey's certificate"},
    {"address mismatch", "set upstream.tls_server_name to a name in Valkey's certificate"},
    {"alert certificate expired", "renew the certificate in upstream.tls_cert_file"},
    {"alert unknown ca",
     "let Valkey's tls-ca-cert-file name the authority that signed upstream.tls_cert_file"},
    {"expired", "renew that certificate"},
    {"verify failed",
     "let upstream.tls_ca_file name the authority that signed Valkey's certificate"},
    {"certificate required",
     "set upstream.tls_cert_file and tls_key_file: Valkey wants to see them"},
    {"no TLS answer", "write valkey:// in upstream.url if Valkey does not speak TLS there"},
    {"no answer to", "check whether Valkey is busy, and whether upstream.url names it"},
    {"nobody takes the connection", "look at firewalls, or correct upstream.url"},
    {"reset by peer", "write valkeys:// in upstream.url if Valkey wants TLS there"},
    {"closed the connection", "write valkeys:// in upstream.url if Valkey wants TLS there"},
});

}  // namespace

std::string with_advice(const std::string& reason) {
    const auto* const found = std::find_if(kAdvice.begin(), kAdvice.end(), [&](const Advice& row) {
        return reason.find(row.part) != std::string::npos;
    });
    if (found == kAdvice.end()) return reason;
    const bool has_period = reason.ends_with('.');
    return reason.substr(0, reason.size() - (has_period ? 1 : 0)) + "; " +
           std::string(found->what_to_do);
}

std::string name_stranger(std::string_view first_bytes) {
    if (first_bytes.starts_with("HTTP/") || first_bytes.starts_with('<')) {
        return "an HTTP server answers there";
    }
    // A TLS record: an alert (21) or a part of the handshake (22), of version 3.x.
    if (first_bytes.starts_with("\x15\x03") || first_bytes.starts_with("\x16\x03")) {
        return "a TLS server answers there";
    }
    return "the server there is not Valkey";
}

}  // namespace nearkey
