// Finds where a reply ends, without looking inside it: RESP2 and RESP3, cut anywhere.
// One counter is the whole state: the number of values still missing. A scalar takes one away, an
// aggregate of n adds n - 1, an attribute of n pairs adds 2n. So neither depth nor declared
// lengths cost memory, and no reply is too deep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nearkey {

enum class ScanResult { Incomplete, Complete, Malformed };

class ReplyScanner {
public:
    // Reads from the front of `bytes` up to the end of one reply; `taken` says how many bytes
    // belong to it. After Complete the next call begins a new reply; after Malformed nothing more
    // can be read from that peer.
    [[nodiscard]] ScanResult scan(std::string_view bytes, size_t& taken);

    // The type byte of the reply being read or just completed: '+', '$', '>', ... '|' if attributes
    // precede the reply. 0 before its first byte.
    char type() const { return type_; }
    // True if that reply has a line of text, at any depth. Only such a line may be more than it
    // seems: its author may have put a line end into it, and text that looks like further replies.
    // Everything else is framed by its length, or checked.
    bool has_text() const { return has_text_; }

private:
    // False: malformed.
    bool skip_payload(std::string_view rest, size_t& used);
    size_t take_text(std::string_view rest);
    bool take_line(std::string_view rest, size_t& used);
    bool read_line(std::string_view line);

    static constexpr size_t kLineMax = 64;

    uint64_t missing_ = 0;
    uint64_t payload_left_ = 0;  // bytes of a bulk and its line end
    bool has_text_ = false;
    bool in_text_ = false;       // inside a line whose content does not matter
    bool ends_with_cr_ = false;  // of such a line, so far
    char type_ = 0;
    char half_line_[kLineMax];  // the beginning of a short line that was cut
    size_t half_line_size_ = 0;
};

}  // namespace nearkey
