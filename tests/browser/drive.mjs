// Opens the status page in Chromium and does what the lines on stdin say, one JSON object each;
// answers with one JSON object a line. tests/system/test_status_page.py decides what is right.
//   node drive.mjs MODULES CHROMIUM URL
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, executablePath, url] = process.argv.slice(2);
const require = createRequire(modules + "/");
const puppeteer = require("puppeteer-core");
const axeSource = require("axe-core").source;

const browser = await puppeteer.launch({
  executablePath,
  headless: true,
  args: ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
const page = await browser.newPage();
const complaints = [];
const requests = [];
page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
page.on("request", (request) => requests.push(request.url()));
await page.evaluateOnNewDocument(() => {
  document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
});

const commands = {
  async open() {
    const answer = await page.goto(url, { waitUntil: "load" });
    return { status: answer.status(), policy: answer.headers()["content-security-policy"] };
  },
  // `scale` with a smaller window: the zoom of the browser.
  async look({ width, height, scheme, motion, scale }) {
    await page.setViewport({ width, height, deviceScaleFactor: scale ?? 1 });
    await page.emulateMediaFeatures([
      { name: "prefers-color-scheme", value: scheme },
      { name: "prefers-reduced-motion", value: motion ?? "no-preference" },
    ]);
    return {};
  },
  // `undrawn`: as it is between the load and the first frame, which draws the lines of the charts.
  async read({ undrawn = false }) {
    return page.evaluate((undrawn) => {
      // What has no room for its contents, reaches out of the window, or is text out of its chart.
      const clipped = () => [...document.querySelectorAll("body *")].filter((each) => {
        if (!each.checkVisibility() || each.closest(".unseen, .skip, select")) return false;
        const box = each.getBoundingClientRect(), style = getComputedStyle(each);
        if (box.right > innerWidth + 1) return true;
        const chart = each.closest("text") && each.ownerSVGElement.getBoundingClientRect();
        if (chart) return box.left < chart.left - 1 || box.right > chart.right + 1 || box.bottom > chart.bottom + 1;
        return !each.closest("svg") && style.overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1;
      }).map((each) => each.outerHTML.slice(0, 120));
      if (undrawn) for (const svg of document.querySelectorAll(".plot")) svg.replaceChildren();
      return {
        title: document.title,
        state: document.getElementById("state").dataset.state,
        words: document.getElementById("state").innerText,
        version: document.getElementById("version").innerText,
        tiles: Object.fromEntries([...document.querySelectorAll(".tile")].map((tile) =>
          [tile.id.replace("tile-", ""), [...tile.children].map((each) => each.textContent)])),
        charts: [...document.querySelectorAll(".plot")].filter((svg) => svg.clientWidth > 0)
          .map((svg) => ({ label: svg.getAttribute("aria-label"), path: svg.querySelector(".line")?.getAttribute("d").length ?? 0 })),
        programs: [...document.querySelectorAll("#programs tr")].map((row) => row.innerText),
        marks: document.querySelectorAll(".plot .mark").length,
        events: [...document.querySelectorAll("#events li")].map((row) => row.innerText),
        about: document.querySelector(".about").innerText,
        flow: Object.fromEntries([...document.querySelectorAll(".part")].map((part) => [part.id, part.dataset.state])),
        clients: [...document.querySelectorAll("#sessions tr")].map((row) => row.innerText),
        slow: [...document.querySelectorAll("#slow tr")].map((row) => row.innerText),
        chosen: ["sessions-words", "slow-words"].map((id) => document.getElementById(id).innerText),
        clipped: clipped(),
        latency: [...document.querySelectorAll("#latency tr")].map((row) => row.innerText),
        hot: [...document.querySelectorAll("#hot tr")].map((row) => row.innerText),
        tables: [...document.querySelectorAll("details[open] tbody")].map((body) => body.rows.length),
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        headings: [...document.querySelectorAll("h1, h2, h3")].map((each) => each.tagName).join(" "),
      };
    }, undrawn);
  },
  // What has the focus after each press of the key, until it leaves the page or comes round.
  async tab({ limit }) {
    await page.evaluate(() => document.activeElement?.blur());
    const seen = [];
    for (let i = 0; i < limit; ++i) {
      await page.keyboard.press("Tab");
      const one = await page.evaluate(() => {
        const element = document.activeElement;
        if (element === document.body) return null;
        const box = element.getBoundingClientRect();
        return {
          what: `${element.tagName.toLowerCase()}${element.id ? "#" + element.id : ""} ${element.innerText.slice(0, 30)}`,
          seen: box.width > 0 && box.right > 0 && getComputedStyle(element).outlineStyle !== "none",
        };
      });
      if (one === null) break;
      seen.push(one);
    }
    const controls = await page.evaluate(() => [...document.querySelectorAll("a[href], button, select, summary, [tabindex='0']")]
      .filter((each) => each.checkVisibility()).length);
    return { seen, controls };
  },
  async press({ selector, key }) {
    await page.focus(selector);
    await page.keyboard.press(key);
    return {};
  },
  async find({ selector }) {
    return { count: await page.evaluate((what) => document.querySelectorAll(what).length, selector) };
  },
  async axe() {
    await page.evaluate(axeSource);
    const result = await page.evaluate(() => window.axe.run());
    return {
      passes: result.passes.length,
      violations: result.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html + " " + node.failureSummary).join(" | ")}`),
    };
  },
  async hide() {
    // A tab in front of it hides it.
    const other = await browser.newPage();
    await other.bringToFront();
    commands.show = async () => { await page.bringToFront(); await other.close(); return {}; };
    return page.evaluate(() => ({ hidden: document.hidden }));
  },
  async shoot({ path, full, clip }) {
    await page.screenshot({ path, fullPage: full ?? false, clip });
    return {};
  },
  async complaints() {
    return { complaints: complaints.splice(0) };
  },
  async requests() {
    return { requests: requests.splice(0) };
  },
};

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...options } = JSON.parse(line);
    let answer;
    try {
      answer = await commands[command](options);
    } catch (error) {
      answer = { error: String(error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
} finally {
  await browser.close();
}
