// Waits for ConnectionPool::prove(). Each prove() is answered by one on_proven(), unless the waiter
// calls stop_waiting() before.
#pragma once

namespace nearkey {

class ProofWaiter {
public:
    virtual void on_proven() = 0;

protected:
    ~ProofWaiter() = default;
};

}  // namespace nearkey
