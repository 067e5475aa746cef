#include "nearkey/upstream/tls.h"

#include "nearkey/base/os_error.h"
#include "nearkey/base/text_of_file.h"

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <ctime>
#include <initializer_list>
#include <stdexcept>
#include <utility>

namespace nearkey {

namespace {

bool is_address(const std::string& name) {
    unsigned char bytes[sizeof(in6_addr)];
    return inet_pton(AF_INET, name.c_str(), bytes) == 1 ||
           inet_pton(AF_INET6, name.c_str(), bytes) == 1;
}

// Made of the files' bytes: the same names may stand for other certificates by now.
std::string fingerprint_of(std::initializer_list<std::string> names) {
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> digest(EVP_MD_CTX_new(),
                                                                         EVP_MD_CTX_free);
    EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
    for (const std::string& name : names) {
        const std::string text = name + '\0' + text_of_file(name) + '\0';
        EVP_DigestUpdate(digest.get(), text.data(), text.size());
    }
    std::string fingerprint(EVP_MAX_MD_SIZE, '\0');
    unsigned size = 0;
    EVP_DigestFinal_ex(digest.get(), reinterpret_cast<unsigned char*>(fingerprint.data()), &size);
    fingerprint.resize(size);
    return fingerprint;
}

[[noreturn]] void fail(const std::string& what, const std::string& advice) {
    std::string reason = take_tls_error();
    if (reason == "PEM lib") reason = "this is not PEM";
    throw std::runtime_error(what + (reason.empty() ? "" : ": " + reason) + "; " + advice);
}

// Seconds since 1970, UTC. 0: the certificate has no such time.
int64_t seconds_of(const ASN1_TIME& time) {
    tm parts{};
    return ASN1_TIME_to_tm(&time, &parts) == 1 ? int64_t{timegm(&parts)} : 0;
}

std::string date_of(int64_t seconds) {
    const time_t time = static_cast<time_t>(seconds);
    tm parts{};
    gmtime_r(&time, &parts);
    char text[32];
    return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts));
}

// OpenSSL keeps no certificate that it refused: when it ended is remembered with the connection.
int on_verified(int is_good, X509_STORE_CTX* store) {
    if (is_good == 1) return is_good;
    auto* const ssl =
        static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    const X509* const certificate = X509_STORE_CTX_get_current_cert(store);
    if (certificate == nullptr) return is_good;
    const int64_t seconds = seconds_of(*X509_get0_notAfter(certificate));
    SSL_set_app_data(ssl, reinterpret_cast<char*>(static_cast<intptr_t>(seconds)));
    return is_good;
}

int64_t refused_not_after(const ssl_st& ssl) {
    return static_cast<int64_t>(reinterpret_cast<intptr_t>(SSL_get_app_data(&ssl)));
}

// OpenSSL says only "system lib" for a file that it can't read; the system says more.
void check_readable(const std::string& what, const std::string& path) {
    struct stat found {};
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0 && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) error = EISDIR;
    if (fd >= 0) close(fd);
    if (error != 0) throw std::runtime_error(what + ": " + os_error(error));
}

}  // namespace

std::string take_tls_error() {
    const unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    if (code == 0) return "";
    const char* reason = ERR_reason_error_string(code);
    return reason == nullptr ? "error " + std::to_string(code) : reason;
}

std::string certificate_problem(const ssl_st& ssl) {
    const long result = SSL_get_verify_result(&ssl);
    if (result == X509_V_OK) return "";
    std::string problem = std::string(": ") + X509_verify_cert_error_string(result);
    if (result == X509_V_ERR_CERT_HAS_EXPIRED) {
        problem += " (notAfter " + date_of(refused_not_after(ssl)) + ")";
    }
    return problem;
}

CertificateEnds certificate_ends(const ssl_st& ssl) {
    const auto end_of = [](const X509* certificate) -> uint64_t {
        if (certificate == nullptr) return 0;
        return static_cast<uint64_t>(seconds_of(*X509_get0_notAfter(certificate)));
    };
    return {end_of(SSL_get0_peer_certificate(&ssl)), end_of(SSL_get_certificate(&ssl))};
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
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verified);
    ERR_clear_error();
    trust(options.tls_ca_file);
    if (!options.tls_cert_file.empty()) identify(options.tls_cert_file, options.tls_key_file);
    fingerprint_ = fingerprint_of({options.tls_server_name, options.tls_ca_file,
                                   options.tls_cert_file, options.tls_key_file});
}

void TlsContext::trust(const std::string& ca_file) {
    SSL_CTX* context = context_.get();
    if (ca_file.empty()) {
        if (SSL_CTX_set_default_verify_paths(context) != 1) {
            fail("the system's authorities can't be read", "set upstream.tls_ca_file");
        }
        return;
    }
    const std::string what = "upstream.tls_ca_file " + ca_file;
    check_readable(what, ca_file);
    if (SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) {
        fail(what, "name a file with certificates in PEM");
    }
}

// REQUIRES: both or neither were configured.
void TlsContext::identify(const std::string& cert_file, const std::string& key_file) {
    SSL_CTX* context = context_.get();
    const std::string certificate = "upstream.tls_cert_file " + cert_file;
    check_readable(certificate, cert_file);
    if (SSL_CTX_use_certificate_chain_file(context, cert_file.c_str()) != 1) {
        fail(certificate, "name a file with a certificate in PEM");
    }
    const std::string key = "upstream.tls_key_file " + key_file;
    check_readable(key, key_file);
    if (SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
        fail(key, "name a file with the unencrypted key of upstream.tls_cert_file in PEM");
    }
}

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
    const std::string problem = certificate_problem(*ssl);
    SSL_free(std::exchange(ssl, nullptr));  // hiredis takes it over only on success.
    return "TLS: " + (reason.empty() ? std::string(context.errstr) : reason) + problem;
}

}  // namespace nearkey
