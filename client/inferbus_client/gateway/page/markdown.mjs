// Markdown as it grows, piece by piece, into elements. What is finished is not touched again, and what is not is
// bounded: a long answer costs as much for each of its letters as a short one. No markup of the text's own comes through.

import { inline } from "./inline.mjs";
import { make } from "./dom.mjs";

const DEEPEST = 6;
/** Letters of a paragraph that are read anew as it grows; what stands before them stays as it is. */
const RUN = 2048;

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/s;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t](.*))?$/s;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|[ \t]*$|[ \t]+)/;
const ROW = /^ {0,3}\|.*\|[ \t]*$/;
const RULER = /^ {0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*$/;

/** Grows into `root`. `onCode` is given each block of code once it stands: its element, and a function for its text. */
export class Markdown {
  #blocks;
  #rest = "";
  #joins = false; // the next line goes on with what the last one began

  constructor(root, onCode = () => {}) {
    this.#blocks = new Blocks(root, 0, onCode);
  }

  /** More of the text. */
  feed(text) {
    this.#blocks.forget();
    const lines = (this.#rest + text).replaceAll("\r\n", "\n").split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
    while (this.#rest.length > RUN) {
      const space = this.#rest.lastIndexOf(" ", RUN);
      const end = space > RUN / 2 ? space + 1 : RUN;
      this.#line(this.#rest.slice(0, end), true);
      this.#rest = this.#rest.slice(end);
    }
    this.#blocks.show();
    if (this.#rest) this.#blocks.preview(this.#rest, this.#joins);
  }

  /** There is no more. */
  end() {
    this.#blocks.forget();
    if (this.#rest) this.#line(this.#rest);
    this.#rest = "";
    this.#blocks.close();
  }

  #line(line, goesOn = false) {
    this.#blocks.line(line, this.#joins);
    this.#joins = goesOn;
  }
}

/** The blocks of a document, of a quotation or of an item of a list, one under the other. */
class Blocks {
  #root;
  #depth;
  #onCode;
  #open = null;
  #preview = null;

  constructor(root, depth, onCode) {
    this.#root = root;
    this.#depth = depth;
    this.#onCode = onCode;
  }

  line(line, joins = false) {
    if (this.#open?.takes(line, joins)) return;
    this.close();
    if (!line.trim()) return;
    this.#open = this.#begun(line);
  }

  close() {
    this.#open?.close?.();
    this.#open = null;
  }

  /** What has come since the last time is shown. */
  show() {
    this.#open?.show?.();
  }

  /** A line that has only begun: as it may become, until more of it comes. */
  preview(text, joins) {
    if (this.#open?.preview?.(text, joins)) return;
    const bare = text.replace(/^[\s>#|]*(?:(?:[-*+]|\d{1,9}[.)])\s+)?/, "");
    if (!bare || fenceOf(text)) return;
    this.#preview = make("p", { className: "begun" }, inline(bare));
    this.#root.append(this.#preview);
  }

  forget() {
    this.#preview?.remove();
    this.#preview = null;
    this.#open?.forget?.();
  }

  #begun(line) {
    const fence = fenceOf(line);
    if (fence) return new Code(this.#root, fence.mark, fence.language, this.#onCode);
    const heading = HEADING.exec(line);
    if (heading) {
      const level = Math.min(heading[1].length + 2, 6);
      this.#root.append(make(`h${level}`, {}, inline((heading[2] ?? "").trim().replace(/[ \t]#+$/, ""))));
      return null;
    }
    if (RULE.test(line)) {
      this.#root.append(make("hr"));
      return null;
    }
    if (this.#depth < DEEPEST) {
      if (QUOTE.test(line)) return new Quote(this.#root, this.#depth, this.#onCode, line);
      if (ITEM.test(line)) return new List(this.#root, this.#depth, this.#onCode, line);
    }
    if (ROW.test(line)) return new Table(this.#root, line);
    return new Paragraph(this.#root, line);
  }
}

/** What a line that opens a block of code says; null for any other. */
function fenceOf(line) {
  const [, mark, words] = FENCE.exec(line) ?? [];
  if (mark === undefined || (mark[0] === "`" && words.includes("`"))) return null;
  return { mark, language: words.trim().split(/\s/, 1)[0].slice(0, 40) };
}

/** Whether a line ends a paragraph. */
function interrupts(line) {
  return fenceOf(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line) || ROW.test(line);
}

class Paragraph {
  #element = make("p");
  #text = "";
  #shown = []; // the nodes of the text that is not yet closed
  #preview = "";

  constructor(root, line) {
    this.#text = line.trim();
    root.append(this.#element);
  }

  takes(line, joins) {
    if (!joins && (!line.trim() || interrupts(line))) return false;
    this.#text += joins ? line : `\n${line.trim()}`;
    if (this.#text.length > RUN) {
      this.show();
      this.#shown = [];
      this.#text = "";
    }
    return true;
  }

  preview(text, joins) {
    if (!joins && interrupts(text)) return false;
    this.#preview = joins ? text : `\n${text.trim()}`;
    this.show();
    return true;
  }

  forget() {
    this.#preview = "";
  }

  show() {
    for (const node of this.#shown) node.remove();
    const run = inline(this.#text + this.#preview);
    this.#shown = [...run.childNodes];
    this.#element.append(run);
  }

  close() {
    this.show();
  }
}

class Code {
  #fence;
  #lines = "";
  #code = make("code");
  #last = null;
  #begun = document.createTextNode("");
  #isEmpty = true;

  constructor(root, fence, language, onCode) {
    this.#fence = fence;
    this.#code.append(this.#begun);
    const pre = make("pre", { tabIndex: 0 }, this.#code);
    const figure = make("figure", { className: "code" }, make("figcaption", {}, make("span", {}, language || "code")), pre);
    root.append(figure);
    onCode(figure, () => this.#code.textContent);
  }

  takes(line, joins) {
    if (this.#last === "closed") return false;
    const mark = line.trim();
    if (!joins && mark.length >= this.#fence.length && mark === this.#fence[0].repeat(mark.length)) {
      this.show();
      this.#last = "closed";
      return true;
    }
    this.#lines += this.#isEmpty || joins ? line : `\n${line}`;
    this.#isEmpty = false;
    return true;
  }

  show() {
    if (this.#lines) this.#code.insertBefore(document.createTextNode(this.#lines), this.#begun);
    this.#lines = "";
  }

  preview(text, joins) {
    if (this.#last === "closed") return false;
    if (!text.trim().startsWith(this.#fence[0])) this.#begun.data = this.#isEmpty || joins ? text : `\n${text}`;
    return true;
  }

  forget() {
    this.#begun.data = "";
  }

  close() {
    this.show();
  }
}

class Quote {
  #blocks;

  constructor(root, depth, onCode, line) {
    const element = make("blockquote");
    root.append(element);
    this.#blocks = new Blocks(element, depth + 1, onCode);
    this.#blocks.line(line.replace(QUOTE, ""));
  }

  takes(line, joins) {
    if (!joins && !QUOTE.test(line)) return false;
    this.#blocks.line(joins ? line : line.replace(QUOTE, ""), joins);
    return true;
  }

  preview(text, joins) {
    if (!joins && !QUOTE.test(text)) return false;
    this.#blocks.preview(joins ? text : text.replace(QUOTE, ""), joins);
    return true;
  }

  forget() {
    this.#blocks.forget();
  }

  show() {
    this.#blocks.show();
  }

  close() {
    this.#blocks.close();
  }
}

class List {
  #element;
  #blocks = null;
  #depth;
  #onCode;
  #indent = 2;
  #isBlank = false;
  #isOrdered;

  constructor(root, depth, onCode, line) {
    this.#depth = depth;
    this.#onCode = onCode;
    const number = /^ *(\d+)/.exec(line);
    this.#isOrdered = number !== null;
    this.#element = make(this.#isOrdered ? "ol" : "ul");
    if (number && number[1] !== "1") this.#element.setAttribute("start", String(Number(number[1])));
    root.append(this.#element);
    this.#item(line);
  }

  takes(line, joins) {
    if (joins) return this.#pass(line, true);
    if (!line.trim()) {
      this.#isBlank = true;
      return this.#pass("", false);
    }
    const deep = line.length - line.trimStart().length;
    if (deep >= this.#indent) return this.#pass(line.slice(this.#indent), false);
    if (this.#isItem(line)) {
      this.#item(line);
      return true;
    }
    // A line that goes on with an item's words needs no indent.
    return !this.#isBlank && !interrupts(line) && this.#pass(line.trimStart(), false);
  }

  preview(text, joins) {
    const deep = text.length - text.trimStart().length;
    if (joins || deep >= this.#indent) this.#blocks.preview(joins ? text : text.slice(this.#indent), joins);
    else return false;
    return true;
  }

  forget() {
    this.#blocks.forget();
  }

  show() {
    this.#blocks.show();
  }

  close() {
    this.#blocks.close();
  }

  #isItem(line) {
    const found = ITEM.exec(line);
    return found !== null && /\d/.test(found[2]) === this.#isOrdered && !RULE.test(line);
  }

  #item(line) {
    this.#blocks?.close();
    const [head] = ITEM.exec(line);
    this.#indent = Math.min(head.trimEnd().length + 1, 6);
    this.#isBlank = false;
    const item = make("li");
    this.#element.append(item);
    this.#blocks = new Blocks(item, this.#depth + 1, this.#onCode);
    this.#blocks.line(line.slice(head.length));
  }

  #pass(line, joins) {
    if (line.trim()) this.#isBlank = false;
    this.#blocks.line(line, joins);
    return true;
  }
}

class Table {
  #root;
  #head;
  #body = null;
  #paragraph = null;

  constructor(root, line) {
    this.#root = root;
    this.#head = line;
  }

  takes(line, joins) {
    if (this.#paragraph) return this.#paragraph.takes(line, joins);
    if (this.#body) {
      if (joins || !ROW.test(line)) return false;
      this.#body.append(row(line, "td"));
      return true;
    }
    if (!joins && RULER.test(line)) {
      this.#body = make("tbody");
      const table = make("table", {}, make("thead", {}, row(this.#head, "th")), this.#body);
      this.#root.append(make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "table" }, table));
      return true;
    }
    // A single row between bars is a line of words.
    this.#paragraph = new Paragraph(this.#root, this.#head);
    return this.#paragraph.takes(line, joins);
  }

  preview(text, joins) {
    if (this.#paragraph) return this.#paragraph.preview(text, joins);
    return text.trimStart().startsWith("|");
  }

  forget() {
    this.#paragraph?.forget();
  }

  show() {
    this.#paragraph?.show();
  }

  close() {
    if (!this.#body && !this.#paragraph) this.#paragraph = new Paragraph(this.#root, this.#head);
    this.#paragraph?.close();
  }
}

function row(line, tag) {
  const cells = line.trim().slice(1, -1).split("|");
  return make("tr", {}, ...cells.map((cell) => make(tag, {}, inline(cell.trim()))));
}
