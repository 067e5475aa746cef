#include "nearkey/upstream/advice.h"

#include <doctest/doctest.h>

namespace nearkey::advice_test {

TEST_CASE("advice: what is known to help follows the reason, which stays as it is") {
    CHECK(with_advice("Connection refused") ==
          "Connection refused; start Valkey there, or correct upstream.url");
    CHECK(with_advice("WRONGPASS invalid username-password pair")
              .starts_with("WRONGPASS invalid username-password pair; correct the user"));
    CHECK(with_advice("TLS: certificate verify failed: hostname mismatch")
              .ends_with("; set upstream.tls_server_name to a name in Valkey's certificate"));
    CHECK(with_advice("NOAUTH Authentication required.")
              .starts_with("NOAUTH Authentication required; "));
    CHECK(with_advice("TLS: sslv3 alert certificate expired")
              .ends_with("; renew the certificate in upstream.tls_cert_file"));
    CHECK(with_advice("LOADING not yet") == "LOADING not yet");
    CHECK(with_advice("").empty());
}

TEST_CASE("advice: strangers are known by their first bytes") {
    CHECK(name_stranger("HTTP/1.1 400 Bad Request\r\n") == "an HTTP server answers there");
    CHECK(name_stranger("<!DOCTYPE HTML>") == "an HTTP server answers there");
    CHECK(name_stranger(std::string_view("\x15\x03\x03\x00", 4)) == "a TLS server answers there");
    CHECK(name_stranger("220 mail.example ESMTP") == "the server there is not Valkey");
    CHECK(name_stranger("") == "the server there is not Valkey");
    CHECK(with_advice(name_stranger("<")).ends_with("Valkey's own host and port"));
}

}  // namespace nearkey::advice_test
