// The page's Markdown on a document without a browser. node markdown_test.mjs FOLDER: where the page's modules lie.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { parseHTML } from "linkedom";

globalThis.document = parseHTML("<!doctype html><html><body></body></html>").document;
const { Markdown } = await import(pathToFileURL(join(process.argv[2], "markdown.mjs")));

/** What comes of a text that is fed in pieces of so many letters. */
function rendered(text, size = text.length || 1, onCode = () => {}) {
  const root = document.createElement("div");
  const markdown = new Markdown(root, onCode);
  for (let at = 0; at < text.length; at += size) markdown.feed(text.slice(at, at + size));
  markdown.end();
  return root;
}

const html = (text, size) => rendered(text, size).innerHTML;

const WHOLE = [
  "# Title #",
  "",
  "One **bold *and* both** `co*de` ~~gone~~ snake_case_name 2 * 3 * 4.",
  "The next line, [a link](https://example.org/a?b=1&c=2) and https://example.org/x.",
  "",
  "- first",
  "  - inner",
  "    goes on",
  "- second `x`",
  "",
  "3. three",
  "4. four",
  "",
  "> quoted",
  "> - in it",
  "",
  "```python",
  "if a < b:",
  "",
  "    print('<b>')",
  "```",
  "| a | b |",
  "|---|:-:|",
  "| 1 | **2** |",
  "",
  "---",
  "end",
].join("\n");

test("the usual becomes what it means", () => {
  const found = html(WHOLE);
  for (const part of [
    "<h3>Title</h3>",
    "<strong>bold <em>and</em> both</strong>",
    "<code>co*de</code>",
    "<s>gone</s>",
    "snake_case_name 2 * 3 * 4.<br>The next",
    'href="https://example.org/a?b=1&c=2"',
    ">https://example.org/x</a>.",
    "<li><p>first</p><ul><li><p>inner<br>goes on</p></li></ul></li>",
    '<ol start="3"><li><p>three</p></li><li><p>four</p></li></ol>',
    "<blockquote><p>quoted</p><ul><li><p>in it</p></li></ul></blockquote>",
    "<code>if a &lt; b:\n\n    print('&lt;b&gt;')</code>",
    "<td><strong>2</strong></td>",
    "<hr><p>end</p>",
  ]) assert.ok(found.includes(part), `${part}\nnot in\n${found}`);
});

test("in whatever pieces it comes, the same comes of it", () => {
  const whole = rendered(WHOLE);
  for (const size of [1, 2, 3, 7, 50]) {
    const found = rendered(WHOLE, size);
    assert.equal(found.textContent, whole.textContent);
    assert.equal(found.innerHTML, whole.innerHTML, `in pieces of ${size}`);
  }
});

test("nothing but our own elements and safe links comes of what a model writes", () => {
  const hostile = [
    "<img src=x onerror=alert(1)><script>alert(1)</script><svg onload=alert(1)>",
    "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,x) [d](vbscript:x) [e](//evil.example)",
    "[f](java\tscript:alert(1)) [g](&#106;avascript:alert(1)) [h](https://a\"onclick=x) <javascript:alert(1)>",
    "![picture](https://evil.example/track.png) ![x](javascript:alert(1))",
    "[in [out](https://ok.example) side](https://ok.example)",
    "```html\n<script>alert(1)</script>\n```",
    "| <b>x</b> | [y](javascript:z) |\n|---|---|\n| <i> | </table> |",
    "`<u>` **<b>** # <h1>",
  ].join("\n\n");
  for (const size of [1, 5, hostile.length]) {
    const root = rendered(hostile, size);
    const allowed = new Set(["p", "br", "a", "strong", "em", "s", "code", "pre", "figure", "figcaption", "span", "div",
      "table", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "hr", "blockquote", "h3", "h4", "h5", "h6"]);
    for (const element of root.querySelectorAll("*")) {
      assert.ok(allowed.has(element.localName), element.localName);
      for (const name of element.getAttributeNames()) {
        assert.ok(["href", "rel", "target", "class", "tabindex", "role", "aria-label", "start"].includes(name.toLowerCase()), name);
      }
    }
    for (const link of root.querySelectorAll("a")) {
      assert.match(link.getAttribute("href"), /^(https?:|mailto:)/);
      assert.match(link.getAttribute("rel"), /noopener noreferrer/);
      assert.equal(link.querySelector("a"), null);
    }
    assert.ok(root.textContent.includes("<img src=x onerror=alert(1)>"));
    assert.ok(root.textContent.includes("[a](javascript:alert(1))"));
  }
});

test("no letter of an answer is lost", () => {
  const long = `${"word ".repeat(5000)}\n\n- ${"item ".repeat(3000)}\n\n${"x".repeat(20000)}`;
  const letters = (text) => text.replaceAll(/[\s-]/g, "");
  for (const size of [17, 5000, long.length]) assert.equal(letters(rendered(long, size).textContent), letters(long));
});

test("a block of code gives its text as it was written", () => {
  const texts = [];
  rendered("```sh\na  b\n\n\tc\n```\n\n~~~\n```\n~~~\n```\nnever closed", 3, (_figure, text) => texts.push(text));
  assert.deepEqual(texts.map((text) => text()), ["a  b\n\n\tc", "```", "never closed"]);
});

const HOSTILE = {
  "open brackets": "[".repeat(200_000),
  "brackets and parentheses": "[a](".repeat(50_000),
  "closing brackets": "[](".repeat(60_000) + "](x".repeat(30_000),
  stars: "*".repeat(200_000),
  "stars and words": "*a **b ".repeat(30_000),
  "closed in a row": "*a".repeat(50_000) + "a*".repeat(50_000),
  underscores: "_ _a".repeat(50_000),
  backticks: Array.from({ length: 600 }, (_, count) => "`".repeat(count)).join(" "),
  quotations: ">".repeat(200_000),
  "deep quotations": ("> ".repeat(500) + "x\n").repeat(100),
  "deep lists": Array.from({ length: 2000 }, (_, deep) => `${" ".repeat(deep)}- x`).join("\n"),
  "lists in a line": "- ".repeat(100_000),
  "spaces of a fence": "```" + " ".repeat(200_000) + "`",
  "spaces of a heading": "#" + " ".repeat(200_000) + "\u2028x",
  rules: "- ".repeat(100_000) + "x",
  bars: "| ".repeat(100_000) + "x",
  rulers: "|-".repeat(100_000) + "\n" + "|-|\n".repeat(20_000),
  addresses: "https://".repeat(30_000),
  angles: "<https://a".repeat(30_000),
  "h's": "h".repeat(200_000),
  "one line": "word ".repeat(60_000),
  newlines: "\n".repeat(200_000),
  "short lines": "a\n".repeat(60_000),
  "open fence": "```\n" + "x\n".repeat(60_000),
  items: "- x\n".repeat(20_000),
};

for (const [name, text] of Object.entries(HOSTILE)) {
  test(`linear in time: ${name}`, () => {
    for (const size of [text.length, Math.ceil(text.length / 100)]) {
      const began = performance.now();
      rendered(text, size);
      assert.ok(performance.now() - began < 20_000, `in pieces of ${size}: ${performance.now() - began} ms`);
    }
  });
}
