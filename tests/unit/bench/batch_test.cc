#include "batch.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

using namespace nearkey::bench;  // style-ok(using-namespace): a test of that namespace alone
using State = ReplyCursor::State;

namespace {

std::vector<BatchShape> shapes_of(LoadCommand command, size_t pipeline, size_t value_bytes) {
    LoadOptions options;
    options.command = command;
    options.pipeline = pipeline;
    options.value_bytes = value_bytes;
    return make_shapes(options);
}

// The state after the bytes came in pieces of that size; Wrong as soon as it is.
State feed(const BatchShape& shape, std::string_view bytes, size_t piece) {
    ReplyCursor cursor;
    cursor.start(shape.replies);
    State state = State::Unfinished;
    for (size_t at = 0; at < bytes.size() && state != State::Wrong; at += piece)
        state = cursor.feed(bytes.substr(at, piece));
    return state;
}

void check_cut_everywhere(const BatchShape& shape, std::string_view replies) {
    for (size_t piece = 1; piece <= replies.size(); ++piece) {
        CHECK(feed(shape, replies, piece) == State::Complete);
        CHECK(feed(shape, std::string(replies) + "x", piece) == State::Wrong);
    }
    for (size_t size = 0; size < replies.size(); ++size)
        CHECK(feed(shape, replies.substr(0, size), 1) == State::Unfinished);
}

size_t count_of(std::string_view text, std::string_view part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1))
        ++count;
    return count;
}

}  // namespace

TEST_CASE("batch: requests as they are sent") {
    CHECK(shapes_of(LoadCommand::Get, 2, 5)[0].text ==
          "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n"
          "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n");
    CHECK(shapes_of(LoadCommand::Set, 1, 5)[0].text ==
          "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$5\r\nxxxxx\r\n");
    CHECK(shapes_of(LoadCommand::Incr, 1, 5)[0].text ==
          "*2\r\n$4\r\nINCR\r\n$16\r\nkey:000000000000\r\n");
    const BatchShape mget = shapes_of(LoadCommand::Mget, 1, 5)[0];
    CHECK(mget.text.starts_with("*21\r\n$4\r\nMGET\r\n$16\r\nkey:000000000000\r\n$16\r\n"));
    CHECK(mget.key_digits.size() == kMgetKeys);
}

TEST_CASE("batch: the digits of a key are where they belong") {
    BatchShape shape = shapes_of(LoadCommand::Get, 2, 5)[0];
    write_key(shape.text.data() + shape.key_digits[0], 123'456'789'012);
    write_key(shape.text.data() + shape.key_digits[1], 7);
    CHECK(shape.text ==
          "*2\r\n$3\r\nGET\r\n$16\r\nkey:123456789012\r\n"
          "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000007\r\n");
}

TEST_CASE("batch: a long value is not in the text, and has its place there") {
    const BatchShape shape = shapes_of(LoadCommand::Set, 2, kValueInlineMax + 1)[0];
    REQUIRE(shape.value_places.size() == 2);
    CHECK(shape.text.substr(0, shape.value_places[0]).ends_with("$4097\r\n"));
    CHECK(shape.value_places[1] == shape.text.size());
}

TEST_CASE("batch: one request in ten of a mixed load is a SET, at any depth") {
    for (const size_t pipeline : {size_t{1}, size_t{3}, size_t{8}, size_t{10}, size_t{16}}) {
        size_t gets = 0;
        size_t sets = 0;
        for (const BatchShape& shape : shapes_of(LoadCommand::Mixed, pipeline, 5)) {
            CHECK(shape.replies.size() == pipeline);
            gets += count_of(shape.text, "GET");
            sets += count_of(shape.text, "SET");
        }
        CHECK(gets == 9 * sets);
    }
}

TEST_CASE("batch: replies are counted wherever they are cut") {
    check_cut_everywhere(shapes_of(LoadCommand::Get, 2, 5)[0], "$5\r\nabcde\r\n$5\r\n+OK\r\n\r\n");
    check_cut_everywhere(shapes_of(LoadCommand::Set, 2, 5)[0], "+OK\r\n+OK\r\n");
    check_cut_everywhere(shapes_of(LoadCommand::Incr, 2, 5)[0], ":1\r\n:123\r\n");
    std::string mget = "*20\r\n";
    for (size_t i = 0; i < kMgetKeys; ++i)
        mget += "$2\r\nab\r\n";
    check_cut_everywhere(shapes_of(LoadCommand::Mget, 1, 2)[0], mget);
}

TEST_CASE("batch: an error, an absent key and a value of another length are wrong") {
    const BatchShape get = shapes_of(LoadCommand::Get, 2, 5)[0];
    for (const std::string_view reply : {"-ERR no\r\n", "$-1\r\n", "$6\r\nabcdef\r\n", "+OK\r\n"}) {
        for (const size_t piece : {size_t{1}, size_t{100}}) {
            CHECK(feed(get, reply, piece) == State::Wrong);
            CHECK(feed(get, "$5\r\nabcde\r\n" + std::string(reply), piece) == State::Wrong);
        }
    }
    CHECK(feed(shapes_of(LoadCommand::Incr, 1, 5)[0], "-ERR\r\n", 1) == State::Wrong);
}
