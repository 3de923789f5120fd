// The settings of the filter, read from the JSON object that `configure` gets.

#include <stddef.h>
#include <stdint.h>

struct settings {
    // In lower case.
    char **words;
    size_t word_count;
    // From this hit on a domain hears how often it tried.
    int64_t limit;
    // Seconds after which its hits are forgotten.
    uint32_t ttl;
};

// What is wrong with the settings; `key` is NULL if nothing is.
struct fault {
    const char *key;
    const char *message;
};

struct fault read_settings(const char *json, size_t len, struct settings *settings);
