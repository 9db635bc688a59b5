// Asks questions on the page of examples/browser, in a real Chromium, and tells what was to be seen.
// node browser.mjs CHROMIUM URL QUESTION... ; a question that ends in "…" is cancelled once its answer grows.
// node browser.mjs CHROMIUM URL --until WORDS: nothing is asked; it says these words after Connect was pressed.
import { chromium } from "playwright-core";

const [executablePath, url, ...questions] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath });
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.addInitScript(watchState);
  await page.goto(url);
  await page.click("#broker button");
  const words = questions[0] === "--until" ? questions.splice(0)[1] : "Connected.";
  await page.waitForFunction((said) => document.getElementById("state").textContent === said, words);
  const answers = [];
  for (const question of questions) answers.push(await ask(page, question));
  console.log(JSON.stringify({ answers, errors, title: await page.title() }));
} finally {
  await browser.close();
}

async function ask(page, question) {
  await page.evaluate(() => (window.states.length = 0));
  await page.fill("#question input", question);
  await page.click("#send");
  if (question.endsWith("…")) {
    await page.waitForFunction(() => document.querySelector("#talk li:last-child").textContent.length > 20);
    await page.click("#cancel");
  }
  await page.waitForFunction(() => document.getElementById("cancel").disabled);
  return page.evaluate(() => {
    const answer = document.querySelector("#talk li:last-child");
    return { text: answer.textContent, elements: answer.childElementCount, states: window.states };
  });
}

function watchState() {
  window.states = [];
  document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("state");
    new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
  });
}
