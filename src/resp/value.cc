#include "nearkey/resp/value.h"

#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <cstring>

namespace nearkey {

namespace {

constexpr int kDepthMax = 16;
constexpr int64_t kValuesMax = 1'000'000;

class ValueParser {
public:
    explicit ValueParser(std::string_view bytes) : rest_(bytes) {}

    bool parse(Value& value, int depth) {
        if (depth > kDepthMax || ++values_ > kValuesMax || rest_.empty()) return false;
        value.type = rest_[0];
        const size_t end = rest_.find("\r\n");
        if (end == std::string_view::npos) return false;
        const std::string_view line = rest_.substr(1, end - 1);
        rest_.remove_prefix(end + 2);
        if (std::strchr("$=!", value.type) != nullptr) return parse_bulk(value, line);
        if (std::strchr("*%~>|", value.type) != nullptr) {
            return parse_aggregate(value, line, depth);
        }
        value.text = line;
        value.integer = parse_integer(line).value_or(0);
        return std::strchr("+-:_,#(", value.type) != nullptr;
    }

    bool is_at_end() const { return rest_.empty(); }

private:
    bool parse_bulk(Value& value, std::string_view line) {
        const auto length = parse_integer(line);
        if (length == -1) {
            value.type = '_';
            return true;
        }
        if (!length || *length < 0 || rest_.size() < static_cast<size_t>(*length) + 2) return false;
        value.text = rest_.substr(0, static_cast<size_t>(*length));
        rest_.remove_prefix(static_cast<size_t>(*length) + 2);
        return true;
    }

    bool parse_aggregate(Value& value, std::string_view line, int depth) {
        const auto count = parse_integer(line);
        if (count == -1) {
            value.type = '_';
            return true;
        }
        if (!count || *count < 0 || *count > kValuesMax) return false;
        const bool has_pairs = value.type == '%' || value.type == '|';
        for (int64_t i = 0; i < *count * (has_pairs ? 2 : 1); ++i) {
            if (!parse(value.elements.emplace_back(), depth + 1)) return false;
        }
        // An attribute stands before the value that it describes.
        if (value.type != '|') return true;
        value.elements.clear();
        return parse(value, depth + 1);
    }

    std::string_view rest_;
    int64_t values_ = 0;
};

}  // namespace

const Value* Value::find(std::string_view key) const {
    for (size_t i = 0; i + 1 < elements.size(); i += 2) {
        if (elements[i].text == key) return &elements[i + 1];
    }
    return nullptr;
}

std::string_view Value::text_of(std::string_view key) const {
    const Value* const value = find(key);
    return value == nullptr ? std::string_view{} : std::string_view(value->text);
}

std::optional<Value> parse_value(std::string_view reply) {
    ValueParser parser(reply);
    Value value;
    if (!parser.parse(value, 0) || !parser.is_at_end()) return std::nullopt;
    return value;
}

void append_value(std::string& out, const Value& value, Protocol protocol) {
    switch (value.type) {
        case '_':
            append_null(out, protocol);
            return;
        case ':':
            append_integer(out, value.integer);
            return;
        case '*':
        case '~':
        case '>':
            append_array_header(out, value.elements.size());
            break;
        case '%':
            append_map_header(out, value.elements.size() / 2, protocol);
            break;
        default:
            append_bulk(out, value.text);
            return;
    }
    for (const Value& element : value.elements)
        append_value(out, element, protocol);
}

}  // namespace nearkey
