// Opens the dashboard in headless Chromium as a person would and says what it sees, as one line of JSON.
//   node dashboard.mjs URL [SCREENSHOT.png]
// Exit 0 when a price changed, the chart is filled and the console stayed clean; 1 with the reason otherwise.
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, screenshot] = process.argv.slice(2);
const { chromium } = createRequire(join(process.env.TAPELINE_NODE ?? process.cwd(), "index.js"))("playwright-core");
const profile = mkdtempSync(join(tmpdir(), "tapeline-browser-"));
const BOUND_MS = 45_000;

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1500, height: 1000 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const troubles = [];
let seen = {};
try {
  const page = await context.newPage();
  page.on("console", (m) => { if (m.type() === "error") troubles.push(m.text()); });
  page.on("pageerror", (e) => troubles.push(String(e)));
  await page.goto(url, { waitUntil: "load", timeout: BOUND_MS });
  const cell = page.locator("[data-price]").first();
  await cell.waitFor({ timeout: BOUND_MS });
  await page.waitForFunction(() => document.querySelector("[data-price]")?.textContent.trim() !== "", null, { timeout: BOUND_MS });
  const first = await cell.textContent();
  await page.waitForFunction((old) => { const now = document.querySelector("[data-price]")?.textContent; return now && now !== old; }, first, { timeout: BOUND_MS });
  const second = await cell.textContent();
  await page.waitForFunction(() => Number(document.querySelector("#chart")?.dataset.candles) > 3, null, { timeout: BOUND_MS });
  // A filled chart has many colours; an empty one has the background and the grid.
  const colours = await page.waitForFunction(() => {
    const found = new Set();
    for (const canvas of document.querySelectorAll("#chart canvas")) {
      if (!canvas.width || !canvas.height) continue;
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) found.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    }
    const [up, down] = [0x35b37e, 0xe5534b];
    return found.has(up) || found.has(down) ? found.size : 0;
  }, null, { timeout: BOUND_MS });
  seen = {
    first, second,
    candles: Number(await page.locator("#chart").getAttribute("data-candles")),
    colours: await colours.jsonValue(),
    mode: await page.getByTestId("mode").textContent(),
    instruments: await page.locator("[data-price]").count(),
    stages: await page.locator("[data-testid=stages] tbody tr").count(),
    fills: await page.locator("[data-testid=fills] tbody tr").count(),
  };
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
} catch (error) {
  troubles.push(String(error));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify({ ...seen, troubles }));
process.exit(troubles.length === 0 ? 0 : 1);
