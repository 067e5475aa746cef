// The URL of nearkey's socket, as nearkey_open takes it: unix:///PATH, unix:///PATH?db=2, /PATH.
// %XX in a path after unix:// stands for a byte, as in other clients' URLs.
#pragma once

#include <stdint.h>

enum { CLIENT_PATH_SIZE = 108 };  // of sockaddr_un, with the byte that ends it

struct client_url {
    char path[CLIENT_PATH_SIZE];
    uint16_t database;
    int has_database;  // 0: it is the listener's, as for a client that sends no SELECT
};

// Returns 0, or -1 if it is none.
int client_url_parse(const char* text, struct client_url* url);
