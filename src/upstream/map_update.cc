#include "nearkey/upstream/map_update.h"

namespace nearkey {

void MapUpdate::read() {
    switch (reader_.step(kRangesPerTurn)) {
        case SlotMapReader::Step::More:
            return;
        case SlotMapReader::Step::Refused:
            stage_ = Stage::Refused;
            return;
        case SlotMapReader::Step::Done:
            map_ = reader_.take();
            numbers_.reserve(map_.servers().size());
            stage_ = Stage::Members;
            return;
    }
}

}  // namespace nearkey
