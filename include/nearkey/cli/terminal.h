// The terminal on stdout, taken over for a program that fills the window: the other screen, no
// cursor, keys without Enter. Everything is as before when this object is gone, also while it is
// stopped by Ctrl-Z. Plain ANSI sequences, which every terminal of today knows.
// One at a time: while it lives, the signals that end, stop or resize come as events of wait().
#pragma once

#include <signal.h>
#include <termios.h>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace nearkey {

struct ScreenLine {
    std::string text;  // without control characters
    bool is_strong = false;
};

struct ScreenSize {
    size_t rows = 24;
    size_t columns = 80;
};

class Terminal {
public:
    enum class Event { Nothing, Resized, Quit };

    // True if stdout is a terminal that can be filled.
    static bool is_there();

    Terminal();
    ~Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    ScreenSize size() const;
    // REQUIRES: they fit into size().
    void draw(const std::vector<ScreenLine>& lines);
    // Waits until something happens, at most `longest`. Quit: q, Ctrl-C, a signal to end, or the
    // terminal is gone.
    Event wait(std::chrono::milliseconds longest);

private:
    void enter();
    void leave();
    void stop_until_continued();
    Event on_signal();
    Event on_keys();
    void write_all(const std::string& bytes);

    bool is_gone_ = false;
    bool has_keys_ = false;
    termios before_{};
    sigset_t signals_before_{};
    int signal_fd_ = -1;
};

}  // namespace nearkey
