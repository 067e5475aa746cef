// The nodes of a cluster that own slots, and who wants to know when they are others. Owned by
// Cluster, which sets them. A watch only schedules work, for it is told in the middle of the map's.
#pragma once

#include <utility>
#include <vector>

namespace nearkey {

class Node;

class PrimariesWatch {
public:
    virtual void on_primaries_changed() = 0;

protected:
    ~PrimariesWatch() = default;
};

class Primaries {
public:
    const std::vector<Node*>& nodes() const { return nodes_; }
    // `watch` outlives this, or unwatch() is called.
    void watch(PrimariesWatch& watch) { watches_.push_back(&watch); }
    void unwatch(PrimariesWatch& watch) { std::erase(watches_, &watch); }
    void set(std::vector<Node*> nodes) {
        if (nodes == nodes_) return;
        nodes_ = std::move(nodes);
        for (PrimariesWatch* const watch : watches_)
            watch->on_primaries_changed();
    }

private:
    std::vector<Node*> nodes_;
    std::vector<PrimariesWatch*> watches_;
};

}  // namespace nearkey
