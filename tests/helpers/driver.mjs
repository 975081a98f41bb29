// Drives a headless Chromium: one JSON command a line on standard input, one JSON answer a line on standard output.
//   node driver.mjs NODE_MODULES CHROMIUM

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [nodeModules, executablePath] = process.argv.slice(2);
const require = createRequire(`${nodeModules}/`);
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");

const browser = await puppeteer.launch({
  executablePath,
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
});
let page, errors, requests;

const commands = {
  async open({ url, width, height, dark }) {
    await page?.close();
    page = await browser.newPage();
    [errors, requests] = [[], []];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("request", (request) => requests.push(request.url()));
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
    await page.setBypassCSP(true); // of axe, which is put into the page
    await page.goto(url, { waitUntil: "load" });
  },
  async upload({ selector, paths }) {
    await (await page.$(selector)).uploadFile(...paths);
  },
  async drop({ paths }) {
    const client = await page.createCDPSession();
    const data = { items: [], files: paths, dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) {
      await client.send("Input.dispatchDragEvent", { type, x: 200, y: 200, data });
    }
  },
  async wait({ expression }) {
    await page.waitForFunction(expression, { timeout: 60_000 });
  },
  evaluate: ({ expression }) => page.evaluate(expression),
  async download({ selector, folder }) {
    const client = await page.createCDPSession();
    await client.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
    await page.click(selector);
  },
  async axe({ rules }) {
    await page.evaluate(axe);
    const only = rules ? { runOnly: { type: "rule", values: rules } } : {};
    const { violations } = await page.evaluate((options) => globalThis.axe.run(document, options), only);
    return violations.map(({ id, help, nodes }) => ({
      id,
      help,
      nodes: nodes.map((node) => `${node.target} ${node.failureSummary}`),
    }));
  },
  async screenshot({ path, fullPage }) {
    await page.screenshot({ path, fullPage });
  },
  errors: () => errors,
  requests: () => requests,
};

console.log(JSON.stringify({ value: await browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const { name, ...options } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await commands[name](options)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
