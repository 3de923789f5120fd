// Refuses mail whose Subject holds a watched word, and counts in `kv` how often each domain has tried.
//
// [plugin.word-watch]
// source = "word-watch.wasm"
// grants = ["kv"]
// settings = { words = ["lottery"], limit = 3, ttl = 86400 }
//
// Nothing is freed here: every call runs in an instance of its own, which goes as a whole when the call is over.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"
#include "settings.h"

static const char SCHEMA[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"words\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"words that no Subject may hold, in any case\"},"
    "\"limit\":{\"type\":\"integer\",\"default\":3,\"description\":\"from this hit on a domain hears how often it tried\"},"
    "\"ttl\":{\"type\":\"integer\",\"default\":86400,\"description\":\"seconds after which its hits are forgotten\"}},"
    "\"required\":[\"words\"]}";

// Set by `configure`, which runs once; every call of a hook begins in the state that it left.
static struct settings settings;

void exports_wasmta_policy_meta_describe(exports_wasmta_policy_meta_manifest_t *ret) {
    plugin_string_dup(&ret->name, "word-watch");
    plugin_string_dup(&ret->version, "0.1.0");
    plugin_string_dup(&ret->summary, "refuses mail by words in its Subject and counts who tries");
    plugin_string_dup(&ret->settings_schema, SCHEMA);
    exports_wasmta_policy_meta_symbol_t *symbol = malloc(sizeof *symbol);
    plugin_string_dup(&symbol->name, "WATCHED_WORD");
    symbol->weight = 2.0;
    plugin_string_dup(&symbol->summary, "the Subject holds a watched word");
    ret->symbols.ptr = symbol;
    ret->symbols.len = 1;
}

bool exports_wasmta_policy_meta_configure(plugin_string_t *json, exports_wasmta_policy_meta_config_error_t *err) {
    struct fault fault = read_settings((const char *)json->ptr, json->len, &settings);
    if (fault.key == NULL) return true;
    memset(err, 0, sizeof *err);
    plugin_string_dup(&err->key, fault.key);
    plugin_string_dup(&err->message, fault.message);
    return false;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

// Whether `text` holds `word`, which is in lower case; the case of ASCII letters does not matter.
static bool holds(plugin_string_t text, const char *word) {
    size_t len = strlen(word);
    for (size_t at = 0; at + len <= text.len; at++) {
        size_t same = 0;
        while (same < len && lower((char)text.ptr[at + same]) == word[same]) same++;
        if (same == len) return true;
    }
    return false;
}

// The first watched word that one of the Subjects holds.
static const char *find(plugin_list_string_t subjects) {
    for (size_t word = 0; word < settings.word_count; word++)
        for (size_t subject = 0; subject < subjects.len; subject++)
            if (holds(subjects.ptr[subject], settings.words[word])) return settings.words[word];
    return NULL;
}

// Whose hits are counted, in lower case; the null reverse-path has no domain.
static char *domain_of(plugin_string_t sender) {
    size_t start = sender.len;
    while (start > 0 && sender.ptr[start - 1] != '@') start--;
    if (start == sender.len) return "<>";
    char *domain = strndup((const char *)sender.ptr + start, sender.len - start);
    for (char *c = domain; *c; c++) *c = lower(*c);
    return domain;
}

static void say(wasmta_policy_log_level_t level, const char *line) {
    plugin_string_t text;
    plugin_string_set(&text, line);
    wasmta_policy_log_write(level, &text);
}

// One more hit. Without its store the filter still refuses; it only forgets who tried before.
static int64_t count(const char *domain) {
    char *text;
    plugin_string_t key;
    int64_t hits;
    wasmta_policy_kv_error_t err;
    asprintf(&text, "hits:%s", domain);
    plugin_string_set(&key, text);
    if (wasmta_policy_kv_incr(&key, 1, &settings.ttl, &hits, &err)) return hits;
    asprintf(&text, "hits of %s are not counted: error %d", domain, err.tag);
    say(WASMTA_POLICY_LOG_LEVEL_WARN, text);
    return 1;
}

void exports_wasmta_policy_on_message_run(
    exports_wasmta_policy_on_message_borrow_session_t session, exports_wasmta_policy_on_message_borrow_envelope_t envelope,
    exports_wasmta_policy_on_message_borrow_message_t message, exports_wasmta_policy_on_message_verdict_t *ret) {
    (void)session;
    plugin_string_t name, sender, symbol, detail;
    plugin_list_string_t subjects;
    plugin_string_set(&name, "Subject");
    wasmta_policy_types_method_message_header(message, &name, &subjects);
    const char *word = find(subjects);
    if (word == NULL) {
        ret->tag = WASMTA_POLICY_TYPES_VERDICT_PASS;
        return;
    }
    plugin_string_set(&symbol, "WATCHED_WORD");
    plugin_string_set(&detail, word);
    wasmta_policy_score_raise(&symbol, 2.0, &detail);
    plugin_string_set(&name, "hits");
    wasmta_policy_metric_add(&name, 1);
    wasmta_policy_types_method_envelope_sender(envelope, &sender);
    const char *domain = domain_of(sender);
    int64_t hits = count(domain);

    char *text;
    asprintf(&text, "%s from %s, hit %" PRId64, word, domain, hits);
    say(WASMTA_POLICY_LOG_LEVEL_INFO, text);
    if (hits < settings.limit)
        asprintf(&text, "we have no interest in %s", word);
    else
        asprintf(&text, "we have no interest in %s, and %s has tried %" PRId64 " times", word, domain, hits);
    ret->tag = WASMTA_POLICY_TYPES_VERDICT_REJECT;
    wasmta_policy_types_reply_t *reply = &ret->val.reject;
    reply->code = 550;
    reply->enhanced.is_some = true;
    reply->enhanced.val = (wasmta_policy_types_enhanced_status_t){.class_ = 5, .subject = 7, .detail = 1};
    plugin_string_set(&reply->text, text);
}
