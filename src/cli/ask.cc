#include "nearkey/cli/ask.h"

#include "nearkey/base/check.h"
#include "nearkey/base/exit_code.h"

#include <ostream>

namespace nearkey {

int report(const AdminReply& reply, std::ostream& err) {
    CHECK(!reply.is_good());
    err << "nearkey: " << reply.problem << '\n';
    return reply.is_answer() ? kExitFailed : kExitMistaken;
}

int finish(std::ostream& out, std::ostream& err) {
    if (out.flush()) return kExitOk;
    err << "nearkey: the answer could not be written\n";
    return kExitFailed;
}

}  // namespace nearkey
