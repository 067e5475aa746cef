// TLS to Valkey through OpenSSL and hiredis_ssl. The server's certificate and its name are always
// verified, before a single byte of a command or of a password is sent.
// Owned by an UpstreamTarget or a SentinelLink; connections borrow it.
#pragma once

#include "nearkey/upstream/options.h"

#include <cstdint>
#include <memory>
#include <string>

struct ssl_ctx_st;
struct ssl_st;
struct redisContext;

namespace nearkey {

// Another one may be moved into it: that holds for connections that are made from now on.
class TlsContext {
public:
    // `host` is the name that the certificate must carry, if options.tls_server_name is empty.
    // Throws std::runtime_error, with the file and OpenSSL's reason, if a file can't be used.
    TlsContext(const UpstreamOptions& options, const std::string& host);
    // Made of the files' bytes and options.tls_server_name: another one is another certificate, key
    // or authority. `host` is no part of it: of a cluster each node has its own.
    const std::string& fingerprint() const { return fingerprint_; }

    // Starts TLS on a connected context, which then owns `ssl`. Empty on success, else the reason.
    [[nodiscard]] std::string start(redisContext& context, ssl_st*& ssl) const;

private:
    void trust(const std::string& ca_file);
    void identify(const std::string& cert_file, const std::string& key_file);

    struct Free {
        void operator()(ssl_ctx_st* context) const;
    };
    std::unique_ptr<ssl_ctx_st, Free> context_;
    std::string server_name_;
    std::string fingerprint_;
};

// True if a write that stopped waits for bytes of the peer, not for room in the socket.
bool waits_for_peer(const ssl_st& ssl);

// The reason of the last failure in OpenSSL's queue, which is emptied. Empty if there is none.
std::string take_tls_error();

// The fault of the server's certificate, as ": hostname mismatch"; "" if there is none.
std::string certificate_problem(const ssl_st& ssl);

// When the certificates of a connection end, Unix time; 0: there is none.
struct CertificateEnds {
    uint64_t server_s;
    uint64_t client_s;  // our own
};
CertificateEnds certificate_ends(const ssl_st& ssl);

}  // namespace nearkey
