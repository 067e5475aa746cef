#include "nearkey/session/context.h"

namespace nearkey {

namespace {
// Assigning {} would keep the memory.
template <class T>
void give_back(T& container) {
    T().swap(container);
}
}  // namespace

void SessionContext::shrink() {
    give_back(encoded);
    give_back(ledgers.keys);
    give_back(ledgers.missing);
    give_back(ledgers.arguments);
    give_back(ledgers.pttl);
}

}  // namespace nearkey
