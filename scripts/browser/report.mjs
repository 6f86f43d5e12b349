// Opens a report file in headless Chromium, light and dark, and says what it sees, as one line of JSON.
//   node report.mjs FILE.html [SCREENSHOT-PREFIX]
// Exit 0 when every chart answers the pointer, nothing was asked of a network and the console stayed clean.
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [file, prefix] = process.argv.slice(2);
const { chromium } = createRequire(join(process.env.TAPELINE_NODE ?? process.cwd(), "index.js"))("playwright-core");
const profile = mkdtempSync(join(tmpdir(), "tapeline-report-"));
const BOUND_MS = 30_000;
const url = pathToFileURL(resolve(file)).href;

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1280, height: 900 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const troubles = [];
let seen = {};
try {
  const page = await context.newPage();
  const requests = [];
  page.on("console", (m) => { if (m.type() === "error") troubles.push(m.text()); });
  page.on("pageerror", (e) => troubles.push(String(e)));
  page.on("request", (r) => { if (r.url() !== url && !r.url().startsWith("data:")) requests.push(r.url()); });
  const papers = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.goto(url, { waitUntil: "load", timeout: BOUND_MS });
    papers.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    if (prefix) await page.screenshot({ path: `${prefix}-${colorScheme}.png`, fullPage: true });
  }
  const tips = [];
  for (const chart of await page.locator("figure.chart").all()) {
    await chart.scrollIntoViewIfNeeded();
    const box = await chart.boundingBox();
    await page.mouse.move(box.x + box.width * 0.6, box.y + box.height * 0.5);
    tips.push(await chart.locator(".tip").textContent());
    if (prefix && tips.length === 1) await page.screenshot({ path: `${prefix}-hover.png` });
  }
  if (tips.length === 0 || tips.some((tip) => !tip)) troubles.push("a chart does not answer the pointer");
  if (requests.length) troubles.push(`it asked for ${requests.join(" ")}`);
  if (papers[0] === papers[1]) troubles.push("light and dark look the same");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  if (wide) troubles.push("the page is wider than the window");
  seen = {
    title: await page.title(),
    tips,
    charts: await page.locator("figure.chart").evaluateAll((all) => all.map((f) => f.id)),
    months: await page.locator("table.months td[style]").count(),
    trades: await page.locator("g.trade").count(),
    headings: await page.locator("h2").allTextContents(),
  };
} catch (error) {
  troubles.push(String(error));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify({ ...seen, troubles }));
process.exit(troubles.length === 0 ? 0 : 1);
