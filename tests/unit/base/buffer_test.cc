#include "nearkey/base/buffer.h"
#include "../rounds.h"
#include "nearkey/base/ring.h"

#include <doctest/doctest.h>

#include <deque>
#include <random>
#include <string>

TEST_CASE("buffer: does what a string does, over a million random steps") {
    nearkey::Buffer buffer;
    std::string model;
    std::minstd_rand random(1);
    for (unsigned step = 0; step < nearkey::rounds(1'000'000); ++step) {
        const size_t size = random() % 100;
        switch (random() % 4) {
            case 0:
            case 1:
                buffer.append(std::string(size, static_cast<char>('a' + step % 26)));
                model.append(size, static_cast<char>('a' + step % 26));
                break;
            case 2: {
                const size_t count = std::min(size * 2, model.size());
                buffer.consume(count);
                model.erase(0, count);
                break;
            }
            default: {
                const size_t kept = model.size() - std::min(size / 4, model.size());
                buffer.truncate(kept);
                model.resize(kept);
            }
        }
        REQUIRE(buffer.view() == model);
    }
}

TEST_CASE("buffer: an empty buffer holds no memory") {
    nearkey::Buffer buffer;
    buffer.append("abc");
    CHECK(buffer.capacity() > 0);
    buffer.consume(3);
    CHECK(buffer.capacity() == 0);
}

TEST_CASE("ring: does what a deque does") {
    nearkey::Ring<int> ring;
    std::deque<int> model;
    std::minstd_rand random(1);
    for (unsigned step = 0; step < nearkey::rounds(100'000); ++step) {
        if (random() % 2 == 0 || model.empty()) {
            ring.push_back(step);
            model.push_back(step);
        } else {
            REQUIRE(ring.front() == model.front());
            ring.pop_front();
            model.pop_front();
        }
        REQUIRE(ring.size() == model.size());
        for (size_t i = 0; i < model.size(); i += 7)
            REQUIRE(ring[i] == model[i]);
    }
}
