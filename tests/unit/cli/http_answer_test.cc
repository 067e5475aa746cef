// HTTP answers as they come: whole, cut at every byte, and what is none.
#include "nearkey/cli/http_answer.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::http_answer_test {
namespace {

using State = HttpAnswer::State;

std::string answer_with(const std::string& headers, const std::string& body) {
    return "HTTP/1.1 200 OK\r\n" + headers + "\r\n" + body;
}

void check_whole(const std::string& bytes, unsigned status, const std::string& body) {
    INFO(bytes);
    const HttpAnswer answer = parse_http_answer(bytes);
    CHECK(answer.state == State::Whole);
    CHECK(answer.status == status);
    CHECK(answer.body == body);
}

void check_state(const std::string& bytes, State state) {
    INFO(bytes);
    CHECK((parse_http_answer(bytes).state == state));
}

TEST_CASE("http answer: a body by its length, in chunks, or up to the end") {
    check_whole(answer_with("Content-Length: 5\r\n", "hello"), 200, "hello");
    check_whole(answer_with("content-length:5\r\n", "hello, and more"), 200, "hello");
    check_whole(answer_with("Content-Length: 0\r\n", ""), 200, "");
    check_whole(answer_with("", "hello"), 200, "hello");
    check_whole("HTTP/1.0 503\r\n\r\nno", 503, "no");
    const std::string chunks = "5\r\nhello\r\nB;x=y\r\n, to chunks\r\n0\r\n\r\n";
    check_whole(answer_with("Transfer-Encoding: Chunked\r\n", chunks), 200, "hello, to chunks");
    check_whole(answer_with("Transfer-Encoding: chunked\r\n", "0\r\nTrailer: x\r\n\r\n"), 200, "");
}

TEST_CASE("http answer: cut anywhere it is cut short, and never taken for whole") {
    const std::string plain = answer_with("Content-Length: 5\r\n", "hello");
    const std::string chunked =
        answer_with("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n");
    for (const std::string& bytes : {plain, chunked}) {
        for (size_t size = 0; size < bytes.size(); ++size)
            check_state(bytes.substr(0, size), State::CutShort);
        check_state(bytes, State::Whole);
    }
}

TEST_CASE("http answer: what is no HTTP/1 is not") {
    for (const char* const bytes :
         {"-ERR unknown command\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.2 200\r\n\r\n",
          "HTTP/1.1200\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 2000\r\n\r\n",
          "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 600 x\r\n\r\n", "HTTP/1.1 -20 x\r\n\r\n",
          "HTTP/1.1 abc\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "\r\n", " HTTP/1.1 200 OK\r\n\r\n"}) {
        check_state(bytes, State::NotHttp);
    }
}

TEST_CASE("http answer: headers that contradict each other, or mean nothing, are refused") {
    for (const char* const headers :
         {"Content-Length: 5\r\nContent-Length: 4\r\n", "Content-Length: -1\r\n",
          "Content-Length: 5x\r\n", "Content-Length: 99999999999999999999\r\n",
          "Content-Length:\r\n", "Transfer-Encoding: gzip\r\n", "no colon\r\n"}) {
        check_state(answer_with(headers, "hello"), State::NotHttp);
    }
    check_state(answer_with("Content-Length: 18446744073709551615\r\n", "hello"), State::CutShort);
}

TEST_CASE("http answer: chunks that lie about their size are refused") {
    const std::string chunked = "Transfer-Encoding: chunked\r\n";
    for (const char* const body :
         {"5\r\nhelloworld\r\n0\r\n\r\n", "x\r\n", "\r\n", "-5\r\nhello\r\n",
          "10000000000000000\r\nhello", "5 5\r\nhello\r\n"}) {
        check_state(answer_with(chunked, body), State::NotHttp);
    }
    check_state(answer_with(chunked, "ffffffffffffffff\r\nhello\r\n"), State::CutShort);
}

}  // namespace
}  // namespace nearkey::http_answer_test
