"""Refuses mail whose Subject holds a watched word, and counts in `kv` how often each domain has tried.

[plugin.word-watch]
source = "word-watch.wasm"
grants = ["kv"]
settings = { words = ["lottery"], limit = 3, ttl = 86400 }
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.meta import ConfigError, Manifest, Symbol
from wit_world.imports import kv, log, metric, score
from wit_world.imports.types import EnhancedStatus, Reply, Verdict_Pass, Verdict_Reject

SCHEMA = """{"type":"object","properties":{
"words":{"type":"array","items":{"type":"string"},"description":"words that no Subject may hold, in any case"},
"limit":{"type":"integer","default":3,"description":"from this hit on a domain hears how often it tried"},
"ttl":{"type":"integer","default":86400,"description":"seconds after which its hits are forgotten"}},
"required":["words"]}"""

# Set by `configure`, which runs once; every call of a hook begins in the state that it left.
words: list[str] = []
limit = 3
ttl = 86400


class Meta(exports.Meta):
    def describe(self) -> Manifest:
        watched = Symbol("WATCHED_WORD", 2.0, "the Subject holds a watched word")
        return Manifest("word-watch", "0.1.0", "refuses mail by words in its Subject and counts who tries", SCHEMA, [watched])

    def configure(self, settings: str) -> None:
        global words, limit, ttl
        given = json.loads(settings)
        words = given.get("words")
        if not isinstance(words, list) or not words or not all(map(is_word, words)):
            raise Err(ConfigError("words", 'a list of words is needed, like ["lottery"]', None, None))
        words = [word.lower() for word in words]
        limit = number(given, "limit", limit)
        ttl = number(given, "ttl", ttl)


class OnMessage(exports.OnMessage):
    def run(self, session, envelope, message):
        word = find(message.header("Subject"))
        if word is None:
            return Verdict_Pass()
        score.raise_("WATCHED_WORD", 2.0, word)
        metric.add("hits", 1)
        domain = domain_of(envelope.sender())
        hits = count(domain)
        log.write(log.Level.INFO, f"{word} from {domain}, hit {hits}")
        text = f"we have no interest in {word}"
        if hits >= limit:
            text += f", and {domain} has tried {hits} times"
        return Verdict_Reject(Reply(550, EnhancedStatus(5, 7, 1), text))


def is_word(word) -> bool:
    return isinstance(word, str) and word != "" and word.isprintable()


def number(given: dict, key: str, default: int) -> int:
    value = given.get(key, default)
    if type(value) is not int or not 1 <= value <= 2**31:
        raise Err(ConfigError(key, "a number from 1 to 2147483648 is needed", None, None))
    return value


def find(subjects: list[str]) -> str | None:
    """The first watched word that one of the Subjects holds."""
    lower = [subject.lower() for subject in subjects]
    return next((word for word in words if any(word in subject for subject in lower)), None)


def domain_of(sender: str) -> str:
    """Whose hits are counted; the null reverse-path has no domain."""
    return sender.rpartition("@")[2].lower() or "<>"


def count(domain: str) -> int:
    """One more hit. Without its store the filter still refuses; it only forgets who tried before."""
    try:
        return kv.incr(f"hits:{domain}", 1, ttl)
    except Err as err:
        log.write(log.Level.WARN, f"hits of {domain} are not counted: {err.value}")
        return 1
