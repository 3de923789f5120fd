// Refuses mail whose Subject holds a watched word, and counts in `kv` how often each domain has tried.
//
// [plugin.word-watch]
// source = "word-watch.wasm"
// grants = ["kv"]
// settings = { words = ["lottery"], limit = 3, ttl = 86400 }

import * as kv from 'wasmta:policy/kv@0.1.0';
import * as log from 'wasmta:policy/log@0.1.0';
import * as metric from 'wasmta:policy/metric@0.1.0';
import * as score from 'wasmta:policy/score@0.1.0';

const settingsSchema = JSON.stringify({
  type: 'object',
  properties: {
    words: { type: 'array', items: { type: 'string' }, description: 'words that no Subject may hold, in any case' },
    limit: { type: 'integer', default: 3, description: 'from this hit on a domain hears how often it tried' },
    ttl: { type: 'integer', default: 86400, description: 'seconds after which its hits are forgotten' },
  },
  required: ['words'],
});

// Set by `configure`, which runs once; every call of a hook begins in the state that it left.
let words, limit, ttl;

export const meta = {
  describe() {
    return {
      name: 'word-watch',
      version: '0.1.0',
      summary: 'refuses mail by words in its Subject and counts who tries',
      settingsSchema,
      symbols: [{ name: 'WATCHED_WORD', weight: 2.0, summary: 'the Subject holds a watched word' }],
    };
  },

  configure(settings) {
    const given = JSON.parse(settings);
    if (!Array.isArray(given.words) || given.words.length === 0 || !given.words.every(isWord)) {
      throw { key: 'words', message: 'a list of words is needed, like ["lottery"]' };
    }
    words = given.words.map((word) => word.toLowerCase());
    limit = number(given, 'limit', 3);
    ttl = number(given, 'ttl', 86400);
  },
};

export const onMessage = {
  run(session, envelope, message) {
    const word = find(message.header('Subject'));
    if (word === undefined) return { tag: 'pass' };
    score.raise('WATCHED_WORD', 2.0, word);
    metric.add('hits', 1n);
    const domain = domainOf(envelope.sender());
    const hits = count(domain);
    log.write('info', `${word} from ${domain}, hit ${hits}`);
    let text = `we have no interest in ${word}`;
    if (hits >= limit) text += `, and ${domain} has tried ${hits} times`;
    return { tag: 'reject', val: { code: 550, enhanced: { class: 5, subject: 7, detail: 1 }, text } };
  },
};

function isWord(word) {
  return typeof word === 'string' && word !== '' && !/[\u0000-\u001f\u007f-\u009f]/.test(word);
}

function number(given, key, fallback) {
  const value = given[key] ?? fallback;
  if (!Number.isInteger(value) || value < 1 || value > 2 ** 31) {
    throw { key, message: 'a number from 1 to 2147483648 is needed' };
  }
  return value;
}

// The first watched word that one of the Subjects holds.
function find(subjects) {
  const lower = subjects.map((subject) => subject.toLowerCase());
  return words.find((word) => lower.some((subject) => subject.includes(word)));
}

// Whose hits are counted; the null reverse-path has no domain.
function domainOf(sender) {
  return sender.slice(sender.lastIndexOf('@') + 1).toLowerCase() || '<>';
}

// One more hit. Without its store the filter still refuses; it only forgets who tried before.
function count(domain) {
  try {
    return kv.incr(`hits:${domain}`, 1n, ttl);
  } catch (error) {
    log.write('warn', `hits of ${domain} are not counted: ${error.payload?.tag ?? error}`);
    return 1n;
  }
}
