// A browser that is told what to do, a line of JSON each, and answers each with one. node page.mjs CHROMIUM
// Whatever a page complains of (errors, its console, its policy) is kept, and told at `problems`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const PATIENCE = 60_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath: process.argv[2] });
const problems = [];
let context;
let page;

const verbs = {
  async open({ url, width = 1200, height = 800, scheme = "light", touch = false }) {
    await context?.close();
    context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, hasTouch: touch });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(url).origin });
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("pageerror", (error) => problems.push(`error: ${error}`));
    page.on("console", (line) => ["error", "warning"].includes(line.type()) && problems.push(`console: ${line.text()}`));
    page.on("request", (request) => {
      const there = new URL(request.url());
      if (there.protocol !== "data:" && there.origin !== new URL(url).origin) problems.push(`request: ${request.url()}`);
    });
    await page.addInitScript(() => {
      window.broken = [];
      window.taken = false;
      document.addEventListener("securitypolicyviolation", (event) => window.broken.push(event.violatedDirective));
    });
    await page.goto(url);
  },
  reload: () => page.reload(),
  click: ({ at }) => page.locator(at).first().click(),
  fill: ({ at, text }) => page.locator(at).fill(text),
  choose: ({ at, value }) => page.locator(at).selectOption(value),
  press: ({ key }) => page.keyboard.press(key),
  type: ({ text }) => page.keyboard.type(text),
  focused: () => page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent),
  text: ({ at }) => page.locator(at).first().textContent(),
  count: ({ at }) => page.locator(at).count(),
  attribute: ({ at, name }) => page.locator(at).first().getAttribute(name),
  see: ({ at, text, timeout = PATIENCE }) => page.locator(at).filter({ hasText: text }).first().waitFor({ timeout }),
  gone: ({ at, text = "", timeout = PATIENCE }) => page.locator(at).filter({ hasText: text }).first().waitFor({ state: "hidden", timeout }),
  evaluate: ({ code }) => page.evaluate(code),
  drop: ({ at, base64, type }) => page.locator(at).evaluate((element, [data, kind]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "dropped", { type: kind }));
    for (const name of ["dragover", "drop"]) element.dispatchEvent(new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, [base64, type]),
  shot: ({ path }) => page.screenshot({ path }).then(() => null),
  async axe() {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.any[0]?.message ?? ""}`).join("; ")}`);
  },
  problems: async () => [...problems.splice(0), ...(await page.evaluate(() => window.broken.map((one) => `policy: ${one}`)))],
};

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, ...rest } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ result: (await verbs[verb](rest)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message) }));
  }
}
await browser.close();
