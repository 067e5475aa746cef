#include "nearkey/upstream/tls.h"

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <stdexcept>
#include <utility>

namespace nearkey {

namespace {

bool is_address(const std::string& name) {
    unsigned char bytes[sizeof(in6_addr)];
    return inet_pton(AF_INET, name.c_str(), bytes) == 1 ||
           inet_pton(AF_INET6, name.c_str(), bytes) == 1;
}

[[noreturn]] void fail(const std::string& what) {
    const std::string reason = take_tls_error();
    throw std::runtime_error(what + (reason.empty() ? "" : ": " + reason));
}

}  // namespace

std::string take_tls_error() {
    const unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    if (code == 0) return "";
    const char* reason = ERR_reason_error_string(code);
    return reason == nullptr ? "error " + std::to_string(code) : reason;
}

void TlsContext::Free::operator()(ssl_ctx_st* context) const {
    SSL_CTX_free(context);
}

TlsContext::TlsContext(const UpstreamOptions& options, const std::string& host)
    : context_(SSL_CTX_new(TLS_client_method())),
      server_name_(options.tls_server_name.empty() ? host : options.tls_server_name) {
    SSL_CTX* context = context_.get();
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    ERR_clear_error();
    if (options.tls_ca_file.empty()) {
        if (SSL_CTX_set_default_verify_paths(context) != 1) fail("the system's CA store");
    } else if (SSL_CTX_load_verify_locations(context, options.tls_ca_file.c_str(), nullptr) != 1) {
        fail("upstream.tls_ca_file " + options.tls_ca_file);
    }
    if (!options.tls_cert_file.empty() &&
        SSL_CTX_use_certificate_chain_file(context, options.tls_cert_file.c_str()) != 1) {
        fail("upstream.tls_cert_file " + options.tls_cert_file);
    }
    if (!options.tls_key_file.empty() &&
        SSL_CTX_use_PrivateKey_file(context, options.tls_key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
        fail("upstream.tls_key_file " + options.tls_key_file);
    }
}

TlsContext::~TlsContext() = default;

bool waits_for_peer(const ssl_st& ssl) {
    return SSL_want(&ssl) == SSL_READING;
}

std::string TlsContext::start(redisContext& context, ssl_st*& ssl) const {
    ERR_clear_error();
    ssl = SSL_new(context_.get());
    if (ssl == nullptr) return "TLS: " + take_tls_error();
    if (is_address(server_name_)) {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name_.c_str());
    } else {
        SSL_set_tlsext_host_name(ssl, server_name_.c_str());
        SSL_set1_host(ssl, server_name_.c_str());
    }
    if (redisInitiateSSL(&context, ssl) == REDIS_OK) return "";
    const std::string reason = take_tls_error();
    SSL_free(std::exchange(ssl, nullptr));  // hiredis takes it over only on success.
    return "TLS: " + (reason.empty() ? std::string(context.errstr) : reason);
}

}  // namespace nearkey
