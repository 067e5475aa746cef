// What a client has sent is run once it is complete, however it came.
#include "nearkey/session/session.h"

#include "session_rig.h"

#include "../rounds.h"
#include "nearkey/resp/reply_writer.h"

#include <doctest/doctest.h>

#include <random>

namespace nearkey::session_input_test {
namespace {

using Words = std::vector<std::string>;

constexpr size_t kMegabyte = size_t{1} << 20;
// As a stream reads at most in one turn.
constexpr size_t kPiece = size_t{64} << 10;

std::string encode(const Words& words) {
    std::string out;
    append_array_header(out, words.size());
    for (const std::string& word : words)
        append_bulk(out, word);
    return out;
}

// Each command gets a small answer that no other one gets.
struct Conversation {
    explicit Conversation(SessionRig& owner) : rig(owner) {}

    void add(const Words& words) {
        std::string line;
        for (const std::string& word : words)
            line += (line.empty() ? "" : " ") + word;
        const std::string answer = "+" + std::to_string(rig.valkey.answers.size()) + "\r\n";
        const auto [entry, is_new] = rig.valkey.answers.emplace(line, answer);
        output += entry->second;
        input += encode(words);
    }

    SessionRig& rig;
    std::string input;
    std::string output;
};

void send_in_pieces(SessionRig& rig, FakeClient& client, std::string_view input, size_t size) {
    for (; !input.empty(); input.remove_prefix(std::min(size, input.size()))) {
        client.send(input.substr(0, size));
        rig.settle();
    }
}

TEST_CASE("session: a command is run when it is complete, wherever its large argument stands") {
    for (const size_t size : {size_t{5000}, size_t{300} << 10, kMegabyte + 1}) {
        const std::string large(size, 'x');
        const std::vector<Words> forms = {
            {"SET", "k", large, "EX", "100"}, {"SET", large, "v"}, {"SET", large, "v", "EX", "100"},
            {"SET", "k", large, "EX", large}, {"SET", "k", large}, {"EVAL", large, "0"},
        };
        for (size_t i = 0; i < forms.size(); ++i) {
            CAPTURE(size);
            CAPTURE(i);
            SessionRig rig;
            FakeClient& client = rig.make_ready();
            Conversation talk(rig);
            talk.add(forms[i]);
            // All but the end arrives together, and the end is smaller than any buffer.
            send_in_pieces(rig, client, talk.input.substr(0, talk.input.size() - 20), kPiece);
            client.send(talk.input.substr(talk.input.size() - 20));
            CHECK(rig.run_until_output(client, talk.output));
            CHECK(rig.metrics.client_memory_bytes < kPiece);
        }
    }
}

TEST_CASE("session: what stands behind a large argument, in the same piece, is run as well") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    Conversation talk(rig);
    talk.add({"SET", "k", std::string(300 << 10, 'x')});
    const size_t middle = talk.input.size();
    talk.add({"SET", "l", std::string(8000, 'y'), "EX", "100"});
    talk.add({"GET", "l"});
    talk.add({"SET", "m", std::string(300 << 10, 'z')});
    client.send(talk.input.substr(0, middle - 10));
    client.send(talk.input.substr(middle - 10, 4000));
    client.send(talk.input.substr(middle + 3990, 5000));
    client.send(talk.input.substr(middle + 8990));
    CHECK(rig.run_until_output(client, talk.output));
}

TEST_CASE("session: what follows a large command is not read from the buffer it left in") {
    // The connection still has much of the first to send, so it copies the second and frees it.
    for (const size_t behind : {size_t{0}, size_t{1}, size_t{100}, kPiece, 2 * kMegabyte}) {
        CAPTURE(behind);
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        Conversation talk(rig);
        talk.add({"SET", "k", std::string(6 * kMegabyte, 'x')});
        talk.add({"SET", "l", std::string(kMegabyte, 'y')});
        const size_t last = talk.input.size() - 100;
        talk.add({"ECHO", std::string(behind, 'e')});
        talk.add({"GET", "k"});
        client.send(talk.input.substr(0, last));
        client.send(talk.input.substr(last));
        CHECK(rig.run_until_output(client, talk.output));
    }
}

TEST_CASE("session: large commands that arrive at once are each moved or copied once") {
    SessionRig rig;
    FakeClient& client = rig.make_ready();
    Conversation talk(rig);
    for (int i = 0; i < 12; ++i)
        talk.add({"SET", std::to_string(i), std::string(kMegabyte + 10, 'x')});
    client.send(talk.input);
    CHECK(rig.run_until_output(client, talk.output));
    CHECK(rig.metrics.client_memory_bytes < kPiece);
}

TEST_CASE("session: commands of any sizes, cut anywhere, are answered all and in order") {
    const std::vector<size_t> sizes = {0,       1,       100,     4094,   4096,   4098,
                                       16384,   65534,   65536,   65538,  262144, 262146,
                                       1048000, 1048574, 1048576, 1048600};
    for (uint32_t seed = 0; seed < rounds(40); ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        const auto below = [&](size_t bound) { return random() % bound; };
        SessionRig rig;
        FakeClient& client = rig.make_ready();
        Conversation talk(rig);
        for (int i = 0; i < 12; ++i) {
            Words words = {below(4) == 0 ? "EVAL" : "SET"};
            for (size_t left = 2 + below(3); left > 0; --left)
                words.emplace_back(sizes[below(sizes.size())], static_cast<char>('a' + i));
            talk.add(below(3) == 0 ? Words{"GET", words.back()} : words);
        }
        std::string_view rest = talk.input;
        while (!rest.empty()) {
            const size_t size = std::min(rest.size(), below(3) == 0 ? 1 + below(300) : kPiece);
            client.send(rest.substr(0, size));
            rest.remove_prefix(size);
            if (below(4) == 0) rig.settle();
        }
        CHECK(rig.run_until_output(client, talk.output));
        CHECK(rig.metrics.client_memory_bytes < kPiece);
    }
}

}  // namespace
}  // namespace nearkey::session_input_test
