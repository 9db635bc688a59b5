// What stands within a line of Markdown: code, emphasis, links. A model writes whatever it was talked into, so the time
// is linear in the text, and only text nodes and a handful of elements come of it.

const MARKS = new Map([["**", "strong"], ["__", "strong"], ["*", "em"], ["_", "em"], ["~~", "s"]]);
const DEEPEST = 12;
const LONGEST_LINK = 2000;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** The nodes of a text. */
export function inline(text) {
  const tokens = tokenized(text);
  const root = document.createDocumentFragment();
  const path = [root];
  let run = "";
  const here = () => path[path.length - 1];
  const flush = () => {
    if (run) here().append(run);
    run = "";
  };
  for (const token of tokens) {
    if (token.text !== undefined && token.pair === undefined) {
      run += token.text;
      continue;
    }
    flush();
    if (token.node) here().append(token.node());
    else if (token.pair === "open") {
      const element = token.make();
      here().append(element);
      path.push(element);
    } else path.pop();
  }
  flush();
  return root;
}

/** A link that may be followed: http, https or mailto; null for any other. */
export function safeLink(address) {
  if (address.length > LONGEST_LINK || !/^(https?:\/\/|mailto:)/i.test(address)) return null;
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function linkTo(href) {
  const link = document.createElement("a");
  link.setAttribute("href", href);
  link.setAttribute("rel", "noopener noreferrer nofollow");
  link.setAttribute("target", "_blank");
  return link;
}

/** Text, nodes, and marks that open and close in pairs. Each character is looked at a fixed number of times. */
function tokenized(text) {
  const tokens = [];
  const opened = []; // marks that may still be closed: innermost last
  const waiting = new Map(); // how many of each are among them
  const ticks = backticks(text);
  let at = 0;
  let from = 0;
  const plain = (to) => {
    if (to > from) tokens.push({ text: text.slice(from, to) });
  };
  const take = (token, length) => {
    plain(at);
    if (token) tokens.push(token);
    at += length;
    from = at;
  };
  const forget = (one) => waiting.set(one.mark, waiting.get(one.mark) - 1);
  const open = (mark, token) => {
    if (opened.length === DEEPEST) forget(opened.shift());
    opened.push({ mark, token });
    waiting.set(mark, (waiting.get(mark) ?? 0) + 1);
  };

  while (at < text.length) {
    const sign = text[at];
    if (sign === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) take({ text: text[at + 1] }, 2);
    else if (sign === "\n") take({ node: () => document.createElement("br") }, 1);
    else if (sign === "`") {
      const length = runLength(text, at);
      const end = ticks(length, at + length);
      if (end < 0) at += length;
      else {
        const code = text.slice(at + length, end).replaceAll("\n", " ");
        const bare = /^ .*[^ ].* $/.test(code) ? code.slice(1, -1) : code;
        take({ node: () => codeOf(bare) }, end + length - at);
      }
    } else if (sign === "*" || sign === "_" || sign === "~") mark(sign);
    else if (sign === "[" || (sign === "!" && text[at + 1] === "[")) {
      // A picture is a link to it: nothing is fetched that was not asked for.
      const token = { text: sign === "!" ? "![" : "[" };
      take(token, token.text.length);
      open("[", token);
    } else if (sign === "]") close();
    else if (sign === "h" || sign === "<") address();
    else at += 1;
  }
  plain(text.length);
  return tokens;

  function mark(sign) {
    const doubled = text[at + 1] === sign;
    const name = doubled ? sign + sign : sign;
    if (!MARKS.has(name)) return void (at += 1);
    const before = text[at - 1] ?? " ";
    const after = text[at + name.length] ?? " ";
    const within = sign === "_" && WORD.test(before) && WORD.test(after); // snake_case
    if (!within && before !== " " && before !== "\n" && waiting.get(name) > 0) {
      let one = opened.pop();
      while (one.mark !== name) {
        forget(one);
        one = opened.pop();
      }
      forget(one);
      one.token.pair = "open";
      one.token.make = () => document.createElement(MARKS.get(name));
      take({ pair: "close" }, name.length);
    } else if (!within && after !== " " && after !== "\n") {
      const token = { text: name };
      take(token, name.length);
      open(name, token);
    } else at += name.length;
  }

  /** `](address)` makes a link of what stands since the last `[`. */
  function close() {
    if (!waiting.get("[")) return void (at += 1);
    let one = opened.pop();
    while (one.mark !== "[") {
      forget(one);
      one = opened.pop();
    }
    forget(one);
    // An address ends at the first of these, so that no stretch is looked through twice.
    const found = text[at + 1] === "(" ? /[\s()\[\]<>]/g : null;
    if (found) found.lastIndex = at + 2;
    const end = found?.exec(text);
    const href = end && end[0] === ")" ? safeLink(text.slice(at + 2, end.index)) : null;
    if (href === null) return void (at += 1);
    one.token.pair = "open";
    one.token.make = () => linkTo(href);
    // There is no link within a link.
    for (const outer of opened.filter((other) => other.mark === "[")) {
      forget(outer);
      opened.splice(opened.indexOf(outer), 1);
    }
    take({ pair: "close" }, end.index + 1 - at);
  }

  /** An address as it stands, with or without angle brackets. Within a link's words it is text. */
  function address() {
    const angled = text[at] === "<";
    const found = (angled ? /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y : /https?:\/\/[^\s<>"'`\])]+/y);
    found.lastIndex = at;
    const match = WORD.test(text[at - 1] ?? "") && !angled ? null : found.exec(text);
    const shown = match && (angled ? match[1] : match[0].replace(/[.,;:!?*_~]+$/, ""));
    const href = shown && !waiting.get("[") ? safeLink(shown) : null;
    if (href === null) return void (at += match ? match[0].length : 1);
    const node = () => {
      const link = linkTo(href);
      link.append(shown);
      return link;
    };
    take({ node }, angled ? match[0].length : shown.length);
  }
}

function codeOf(text) {
  const code = document.createElement("code");
  code.append(text);
  return code;
}

function runLength(text, at) {
  let end = at;
  while (text[end] === "`") end += 1;
  return end - at;
}

/** Finds the next run of so many backticks after a place. The places asked for must not go back. */
function backticks(text) {
  const runs = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!runs.has(run.length)) runs.set(run.length, { places: [], next: 0 });
    runs.get(run.length).places.push(index);
  }
  return (length, after) => {
    const known = runs.get(length);
    if (!known) return -1;
    while (known.next < known.places.length && known.places[known.next] < after) known.next += 1;
    return known.places[known.next] ?? -1;
  };
}
