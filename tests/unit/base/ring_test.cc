#include "nearkey/base/ring.h"

#include <doctest/doctest.h>

namespace nearkey::ring_test {
namespace {

TEST_CASE("ring: what is queued stays in order while it grows and shrinks") {
    Ring<int> ring;
    int pushed = 0;
    int popped = 0;
    for (int round = 0; round < 200; ++round) {
        const int size = round % 7 == 0 ? 100 : round % 5;
        while (pushed - popped < size)
            ring.push_back(pushed++);
        if (round % 3 == 0) ring.shrink();
        REQUIRE(ring.size() == static_cast<size_t>(pushed - popped));
        for (int i = popped; i < pushed; ++i)
            REQUIRE(ring[static_cast<size_t>(i - popped)] == i);
        while (pushed - popped > size / 2) {
            REQUIRE(ring.front() == popped++);
            ring.pop_front();
        }
    }
}

TEST_CASE("ring: shrink() keeps what is needed and no more") {
    Ring<int> ring;
    for (int i = 0; i < 1000; ++i)
        ring.push_back(i);
    CHECK(ring.capacity() == 1024);
    ring.shrink();
    CHECK(ring.capacity() == 1024);
    while (ring.size() > 5)
        ring.pop_front();
    ring.shrink();
    CHECK(ring.capacity() == 8);
    CHECK(ring.front() == 995);
    ring.clear();
    ring.shrink();
    CHECK(ring.capacity() == 0);
    ring.push_back(1);
    CHECK(ring.front() == 1);
}

}  // namespace
}  // namespace nearkey::ring_test
