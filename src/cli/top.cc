#include "nearkey/base/exit_code.h"
#include "nearkey/cli/ask.h"
#include "nearkey/cli/top_view.h"

#include <chrono>
#include <ostream>
#include <thread>
#include <utility>

namespace nearkey {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

int print_once(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const Snapshot before = take_snapshot(options.target);
    if (!before.is_whole) return report(before.failure, err);
    std::this_thread::sleep_for(milliseconds(options.interval_ms));
    const Snapshot now = take_snapshot(options.target);
    if (!now.is_whole) return report(now.failure, err);
    Past past;
    past.ask(options.target);
    constexpr size_t kColumns = 80;
    for (const ScreenLine& line : top_lines(now, &before, {options.target.address, past, kColumns}))
        out << line.text << '\n';
    return finish(out, err);
}

// The contents of the screen: the last two answers, or why there is none.
class Picture {
public:
    explicit Picture(const AdminTarget& target) : target_(target), now_(take_snapshot(target)) {
        past_.ask(target);
    }

    void take_next() {
        before_ = std::move(now_);
        now_ = take_snapshot(target_);
        past_.ask(target_);
    }
    void draw(Terminal& terminal) const {
        const ScreenSize size = terminal.size();
        terminal.draw(fitted(lines(size), size));
    }

private:
    std::vector<ScreenLine> lines(const ScreenSize& size) const {
        if (!now_.is_whole) return away_lines(now_.failure.problem, size.columns);
        return top_lines(now_, before_.is_whole ? &before_ : nullptr,
                         {target_.address, past_, size.columns});
    }

    const AdminTarget& target_;
    Snapshot before_;
    Snapshot now_;
    Past past_;
};

}  // namespace

int run_top(const AskOptions& options, std::ostream& out, std::ostream& err) {
    if (options.once || !Terminal::is_there()) return print_once(options, out, err);
    Picture picture(options.target);
    Terminal terminal;
    while (true) {
        const Clock::time_point next = Clock::now() + milliseconds(options.interval_ms);
        picture.draw(terminal);
        while (Clock::now() < next) {
            const auto left = std::chrono::ceil<milliseconds>(next - Clock::now());
            const Terminal::Event event = terminal.wait(left);
            if (event == Terminal::Event::Quit) return kExitOk;
            if (event == Terminal::Event::Resized) picture.draw(terminal);
        }
        picture.take_next();
    }
}

}  // namespace nearkey
