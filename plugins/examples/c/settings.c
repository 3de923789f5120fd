// Just enough JSON for the settings. The host has made the text from its config, so it is well-formed; what is not yet known is
// whether each value is of the right kind.

#include "settings.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct text {
    const char *at;
    const char *end;
};

static void space(struct text *json) {
    while (json->at < json->end && (*json->at == ' ' || (*json->at >= '\t' && *json->at <= '\r'))) json->at++;
}

static bool next(struct text *json, char wanted) {
    space(json);
    if (json->at == json->end || *json->at != wanted) return false;
    json->at++;
    return true;
}

static char *put_utf8(char *out, unsigned code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

static char unescaped(char c) {
    switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return c;
    }
}

// A string in memory of its own; NULL if there is none here. The host writes \u only for control characters.
static char *string(struct text *json) {
    if (!next(json, '"')) return NULL;
    char *own = malloc((size_t)(json->end - json->at) + 4), *out = own;
    while (json->at < json->end && *json->at != '"') {
        char c = *json->at++;
        if (c != '\\' || json->at == json->end) {
            *out++ = c;
        } else if ((c = *json->at++) == 'u' && json->end - json->at >= 4) {
            char hex[] = {json->at[0], json->at[1], json->at[2], json->at[3], 0};
            out = put_utf8(out, (unsigned)strtoul(hex, NULL, 16));
            json->at += 4;
        } else {
            *out++ = unescaped(c);
        }
    }
    *out = 0;
    next(json, '"');
    return own;
}

// Steps over a value of any kind, up to what follows it in its object.
static void skip(struct text *json) {
    int depth = 0;
    while (json->at < json->end) {
        char c = *json->at;
        if (depth == 0 && (c == ',' || c == '}')) return;
        if (c == '"') {
            string(json);
            continue;
        }
        if (c == '[' || c == '{') depth++;
        if (c == ']' || c == '}') depth--;
        json->at++;
    }
}

static bool is_word(const char *text) {
    if (*text == 0) return false;
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7F) return false;
    return true;
}

static bool words(struct text *json, struct settings *settings) {
    if (!next(json, '[')) return false;
    do {
        char *word = string(json);
        if (word == NULL || !is_word(word)) return false;
        for (char *c = word; *c; c++)
            if (*c >= 'A' && *c <= 'Z') *c += 'a' - 'A';
        settings->words = realloc(settings->words, (settings->word_count + 1) * sizeof *settings->words);
        settings->words[settings->word_count++] = word;
    } while (next(json, ','));
    return next(json, ']');
}

// A whole number from 1 to 2^31; 0 if it is anything else.
static int64_t number(struct text *json) {
    space(json);
    int64_t value = 0;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9' && value < INT64_C(1) << 32)
        value = value * 10 + (*json->at++ - '0');
    space(json);
    bool whole = json->at < json->end && (*json->at == ',' || *json->at == '}');
    return whole && value <= INT64_C(1) << 31 ? value : 0;
}

struct fault read_settings(const char *json_text, size_t len, struct settings *settings) {
    static const char NO_WORDS[] = "a list of words is needed, like [\"lottery\"]";
    static const char NO_NUMBER[] = "a number from 1 to 2147483648 is needed";
    struct text json = {json_text, json_text + len};
    *settings = (struct settings){.limit = 3, .ttl = 86400};
    next(&json, '{');
    while (!next(&json, '}')) {
        char *key = string(&json);
        if (key == NULL || !next(&json, ':')) break;
        if (strcmp(key, "words") == 0) {
            if (!words(&json, settings)) return (struct fault){"words", NO_WORDS};
        } else if (strcmp(key, "limit") == 0) {
            if ((settings->limit = number(&json)) == 0) return (struct fault){"limit", NO_NUMBER};
        } else if (strcmp(key, "ttl") == 0) {
            if ((settings->ttl = (uint32_t)number(&json)) == 0) return (struct fault){"ttl", NO_NUMBER};
        } else {
            skip(&json);
        }
        next(&json, ',');
    }
    return settings->word_count > 0 ? (struct fault){NULL, NULL} : (struct fault){"words", NO_WORDS};
}
