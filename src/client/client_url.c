#include "client_url.h"

#include <string.h>

enum { DATABASE_MAX = UINT16_MAX };

static const char kScheme[] = "unix://";
static const char kDatabase[] = "db=";

// -1: it is no digit of a hexadecimal number.
static int hex_value(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    const char small = (char)(digit | 0x20);
    return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

// The byte at `at`, which moves behind it; 0: it stands for none.
static char next_byte(const char** at, const char* end) {
    const char* text = *at;
    *at += 1;
    if (*text != '%') return *text;
    if (end - text < 3) return 0;
    const int high = hex_value(text[1]);
    const int low = hex_value(text[2]);
    *at = text + 3;
    return high < 0 || low < 0 ? 0 : (char)(high * 16 + low);
}

static int parse_database(const char* text, uint16_t* database) {
    if (*text == 0) return -1;
    uint32_t number = 0;
    for (; *text != 0; ++text) {
        if (*text < '0' || *text > '9') return -1;
        number = number * 10 + (uint32_t)(*text - '0');
        if (number > DATABASE_MAX) return -1;
    }
    *database = (uint16_t)number;
    return 0;
}

int client_url_parse(const char* text, struct client_url* url) {
    *url = (struct client_url){.database = 0};
    if (text == NULL) return -1;
    const size_t scheme_size = sizeof kScheme - 1;
    const int has_scheme = strncmp(text, kScheme, scheme_size) == 0;
    const char* at = has_scheme ? text + scheme_size : text;
    const char* end = has_scheme ? strchr(at, '?') : NULL;
    const char* query = end == NULL ? NULL : end + 1;
    if (end == NULL) end = at + strlen(at);
    if (*at != '/') return -1;
    size_t size = 0;
    while (at < end) {
        const char byte = has_scheme ? next_byte(&at, end) : *at++;
        if (byte == 0 || size + 1 == sizeof url->path) return -1;
        url->path[size++] = byte;
    }
    if (query == NULL || *query == 0) return 0;
    if (strncmp(query, kDatabase, sizeof kDatabase - 1) != 0) return -1;
    url->has_database = 1;
    return parse_database(query + sizeof kDatabase - 1, &url->database);
}
