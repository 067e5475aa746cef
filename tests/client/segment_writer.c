#include "segment_writer.h"

#include <string.h>

#include "../../src/client/segment_hooks.h"
#include "nearkey/cache/segment.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { WORD = 8, CLASS_BYTES = 64, SOURCES_BYTES = NEARKEY_SEGMENT_SOURCES * WORD };

static uint64_t* word_at(const struct segment_writer* writer, uint64_t at) {
    return (uint64_t*)(writer->base + at);
}

static void store_word(const struct segment_writer* writer, uint64_t at, uint64_t word) {
    __atomic_store_n(word_at(writer, at), word, __ATOMIC_RELAXED);
    SEGMENT_PAUSE();
}

static struct nearkey_segment_header* header_of(const struct segment_writer* writer) {
    return (struct nearkey_segment_header*)writer->base;
}

struct segment_reply segment_reply_of(const void* key, size_t key_size, const void* value,
                                      size_t value_size) {
    return (struct segment_reply){.key = key,
                                  .key_size = key_size,
                                  .value = value,
                                  .value_size = value_size,
                                  .deadline_ms = UINT64_MAX};
}

uint64_t segment_writer_size(uint64_t bucket_count, uint64_t item_bytes) {
    const uint64_t size = NEARKEY_SEGMENT_PAGE + SOURCES_BYTES +
                          bucket_count * sizeof(struct nearkey_segment_bucket) + item_bytes;
    return (size + NEARKEY_SEGMENT_PAGE - 1) / NEARKEY_SEGMENT_PAGE * NEARKEY_SEGMENT_PAGE;
}

void segment_writer_init(struct segment_writer* writer, void* base, uint64_t size,
                         uint64_t bucket_count) {
    const uint64_t buckets_at = NEARKEY_SEGMENT_PAGE + SOURCES_BYTES;
    const uint64_t items_at = buckets_at + bucket_count * sizeof(struct nearkey_segment_bucket);
    *writer = (struct segment_writer){.base = base,
                                      .size = size,
                                      .bucket_count = bucket_count,
                                      .buckets_at = buckets_at,
                                      .hash_seed = UINT64_C(0x9e3779b97f4a7c15),
                                      .items_end = items_at,
                                      .epoch = 1};
    *header_of(writer) = (struct nearkey_segment_header){
        .magic = NEARKEY_SEGMENT_MAGIC,
        .layout = NEARKEY_SEGMENT_LAYOUT,
        .bucket_count = (uint32_t)bucket_count,
        .size = size,
        .sources_at = NEARKEY_SEGMENT_PAGE,
        .buckets_at = buckets_at,
        .items_at = items_at,
        .hash_seed = writer->hash_seed,
        .incarnation = UINT64_C(0x1020304050607080),
        .epoch = writer->epoch,
        .max_staleness_ms = 1000,
        .owner = 1,
    };
    for (uint64_t i = 0; i < bucket_count; ++i) {
        *word_at(writer, buckets_at + i * sizeof(struct nearkey_segment_bucket)) = 2;
    }
}

static uint64_t hash_of(const struct segment_writer* writer, const void* key, size_t size) {
    return XXH3_64bits_withSeed(key, size, writer->hash_seed);
}

static uint64_t bucket_of(const struct segment_writer* writer, uint64_t hash) {
    return writer->buckets_at +
           (hash & (writer->bucket_count - 1)) * sizeof(struct nearkey_segment_bucket);
}

// The version is odd, for all who see any of what follows.
static void begin_change(const struct segment_writer* writer, uint64_t bucket_at) {
    if (SEGMENT_BREAKS(VERSION)) return;
    store_word(writer, bucket_at, *word_at(writer, bucket_at) + 1);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void end_change(const struct segment_writer* writer, uint64_t bucket_at) {
    if (SEGMENT_BREAKS(VERSION)) return;
    uint64_t* version = word_at(writer, bucket_at);
    __atomic_store_n(version, *version + 1, __ATOMIC_RELEASE);
    SEGMENT_PAUSE();
}

static const struct nearkey_segment_item* item_at(const struct segment_writer* writer,
                                                  uint64_t at) {
    return (const struct nearkey_segment_item*)(writer->base + at);
}

// The place of the entry of a key, 0: there is none.
static uint64_t find_entry(const struct segment_writer* writer, uint64_t hash, const void* key,
                           size_t key_size, uint16_t database) {
    const uint64_t first = bucket_of(writer, hash) + WORD;
    for (uint64_t at = first; at < first + NEARKEY_SEGMENT_ENTRIES * WORD; at += WORD) {
        const uint64_t entry = *word_at(writer, at);
        if (entry == 0 || nearkey_segment_tag(entry) != nearkey_segment_tag(hash)) continue;
        const struct nearkey_segment_item* item = item_at(writer, nearkey_segment_offset(entry));
        if (item->key_size == key_size && item->database == database &&
            memcmp(item + 1, key, key_size) == 0) {
            return at;
        }
    }
    return 0;
}

static uint64_t* free_list(struct segment_writer* writer, uint64_t item_size) {
    return &writer->free_items[(item_size + CLASS_BYTES - 1) / CLASS_BYTES];
}

static void give_back(struct segment_writer* writer, uint64_t at) {
    const struct nearkey_segment_item* item = item_at(writer, at);
    uint64_t* list = free_list(writer, nearkey_segment_item_size(item->key_size, item->value_size));
    store_word(writer, at, *list);
    *list = at;
}

// 0: there is none left.
static uint64_t take_memory(struct segment_writer* writer, uint64_t item_size) {
    uint64_t* list = free_list(writer, item_size);
    if (*list != 0) {
        const uint64_t at = *list;
        *list = *word_at(writer, at);
        return at;
    }
    const uint64_t bytes = (item_size + CLASS_BYTES - 1) / CLASS_BYTES * CLASS_BYTES;
    const uint64_t at = writer->items_end;
    if (bytes > writer->size - at) return 0;
    writer->items_end += bytes;
    return at;
}

static void take_out(struct segment_writer* writer, uint64_t hash, uint64_t entry_at) {
    const uint64_t item = nearkey_segment_offset(*word_at(writer, entry_at));
    const uint64_t bucket_at = bucket_of(writer, hash);
    begin_change(writer, bucket_at);
    store_word(writer, entry_at, 0);
    end_change(writer, bucket_at);
    give_back(writer, item);
}

static void store_bytes(const struct segment_writer* writer, uint64_t at, const void* bytes,
                        size_t size) {
    const unsigned char* from = bytes;
    for (; size > 0; at += WORD) {
        uint64_t word = 0;
        const size_t part = size < WORD ? size : WORD;
        memcpy(&word, from, part);
        store_word(writer, at, word);
        from += part;
        size -= part;
    }
}

static void store_item(const struct segment_writer* writer, uint64_t at,
                       const struct segment_reply* reply) {
    const struct nearkey_segment_item item = {.deadline_ms = reply->deadline_ms,
                                              .epoch = writer->epoch,
                                              .value_size = (uint32_t)reply->value_size,
                                              .key_size = (uint16_t)reply->key_size,
                                              .database = reply->database,
                                              .source = reply->source,
                                              .flags = reply->flags};
    store_bytes(writer, at, &item, sizeof item);
    at += sizeof item;
    store_bytes(writer, at, reply->key, reply->key_size);
    store_bytes(writer, at + nearkey_segment_padded(reply->key_size), reply->value,
                reply->value_size);
}

// A place for one more entry.
static uint64_t make_room(struct segment_writer* writer, uint64_t hash) {
    const uint64_t first = bucket_of(writer, hash) + WORD;
    for (uint64_t at = first; at < first + NEARKEY_SEGMENT_ENTRIES * WORD; at += WORD) {
        if (*word_at(writer, at) == 0) return at;
    }
    take_out(writer, hash, first);
    return first;
}

int segment_writer_put(struct segment_writer* writer, const struct segment_reply* reply) {
    const uint64_t hash = hash_of(writer, reply->key, reply->key_size);
    const uint64_t present = find_entry(writer, hash, reply->key, reply->key_size, reply->database);
    const int is_in_place = SEGMENT_BREAKS(REUSE) && present != 0;
    if (is_in_place) give_back(writer, nearkey_segment_offset(*word_at(writer, present)));
    if (present != 0 && !is_in_place) take_out(writer, hash, present);
    const uint64_t at =
        take_memory(writer, nearkey_segment_item_size(reply->key_size, reply->value_size));
    if (at == 0) return -1;
    store_item(writer, at, reply);
    const uint64_t bucket_at = bucket_of(writer, hash);
    const uint64_t entry_at = is_in_place ? present : make_room(writer, hash);
    begin_change(writer, bucket_at);
    store_word(writer, entry_at, nearkey_segment_entry(hash, at));
    end_change(writer, bucket_at);
    return 0;
}

int segment_writer_remove(struct segment_writer* writer, const void* key, size_t key_size,
                          uint16_t database) {
    const uint64_t hash = hash_of(writer, key, key_size);
    const uint64_t entry_at = find_entry(writer, hash, key, key_size, database);
    if (entry_at == 0) return 0;
    take_out(writer, hash, entry_at);
    return 1;
}

static void empty_bucket(struct segment_writer* writer, uint64_t bucket_at) {
    begin_change(writer, bucket_at);
    for (uint64_t i = 1; i <= NEARKEY_SEGMENT_ENTRIES; ++i) {
        store_word(writer, bucket_at + i * WORD, 0);
    }
    end_change(writer, bucket_at);
}

void segment_writer_clear(struct segment_writer* writer) {
    uint32_t* epoch = &header_of(writer)->epoch;
    const int is_on = __atomic_load_n(epoch, __ATOMIC_RELAXED) != 0;
    ++writer->epoch;
    if (is_on) __atomic_store_n(epoch, writer->epoch, __ATOMIC_RELEASE);
    for (uint64_t i = 0; i < writer->bucket_count; ++i) {
        empty_bucket(writer, writer->buckets_at + i * sizeof(struct nearkey_segment_bucket));
    }
    writer->items_end = header_of(writer)->items_at;
    memset(writer->free_items, 0, sizeof writer->free_items);
}

void segment_writer_set_on(struct segment_writer* writer, int is_on) {
    if (is_on) ++writer->epoch;
    __atomic_store_n(&header_of(writer)->epoch, is_on ? writer->epoch : 0, __ATOMIC_RELEASE);
    SEGMENT_PAUSE();
}

void segment_writer_set_source(struct segment_writer* writer, uint16_t source, uint64_t proven_ms) {
    const uint64_t at = header_of(writer)->sources_at + source * sizeof(uint64_t);
    __atomic_store_n(word_at(writer, at), proven_ms, __ATOMIC_RELEASE);
    SEGMENT_PAUSE();
}

void segment_writer_set_staleness(struct segment_writer* writer, uint64_t max_staleness_ms) {
    __atomic_store_n(&header_of(writer)->max_staleness_ms, max_staleness_ms, __ATOMIC_RELAXED);
}

void segment_writer_set_owner(struct segment_writer* writer, uint32_t owner) {
    __atomic_store_n(&header_of(writer)->owner, owner, __ATOMIC_RELEASE);
    SEGMENT_PAUSE();
}

void segment_writer_set_over(struct segment_writer* writer) {
    __atomic_store_n(&header_of(writer)->is_over, 1, __ATOMIC_RELEASE);
    segment_writer_set_on(writer, 0);
}
