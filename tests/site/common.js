// What the checks of the demo page and of the live figures share: a browser without any other host, pages that note what went wrong
const fs = require('fs');
const {chromium} = require('playwright-core');
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'];
const DESK = {viewport: {width: 1100, height: 800}, reducedMotion: 'reduce'};
const PHONE = {viewport: {width: 360, height: 740}, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme: 'dark'};

const held = {browser: null, job: null};

// A fresh page at an address; `page.wrong` is what it logs, and what it asks for in vain or of another host
async function open(address, mode = DESK, prepare = null) {
  const context = await held.browser.newContext({...mode, permissions: ['camera']}), page = await context.newPage();
  page.wrong = [];
  page.setDefaultTimeout(60_000);
  page.on('console', m => { if (/error|warning/.test(m.type())) page.wrong.push(`${m.type()}: ${m.text()}`); });
  page.on('pageerror', e => page.wrong.push(`uncaught: ${e.message}`));
  page.on('request', r => { if (/^(https?|wss?):/.test(r.url()) && !r.url().startsWith(held.job.url)) page.wrong.push(`asked for ${r.url()}`); });
  page.on('requestfailed', r => page.wrong.push(`${r.url()}: ${r.failure().errorText}`));
  page.on('response', r => { if (r.status() >= 400) page.wrong.push(`${r.url()}: ${r.status()}`); });
  if (prepare) await page.addInitScript(prepare);
  await page.goto(address);
  return page;
}

// Until `test` says yes; `says` tells what the page shows if that doesn't come
async function until(test, what, says) {
  for (let i = 0; i < 2400; i++) { if (await test()) return; await new Promise(ok => setTimeout(ok, 50)); }
  throw new Error(`waited in vain: ${what}; the page says: ${await says()}`);
}

async function axe(page, where) {
  await page.evaluate(AXE);
  const found = await page.evaluate(where => window.axe.run(where, {resultTypes: ['violations']}), where);
  return found.violations.map(v => `${v.id} (${v.help}): ${v.nodes[0].html.slice(0, 120)}`);
}

// What a page's process holds, in bytes, after what it no longer needs is gone
async function memory(page) {
  const cdp = await held.browser.newBrowserCDPSession();
  await (await page.context().newCDPSession(page)).send('HeapProfiler.collectGarbage');
  const {processInfo} = await cdp.send('SystemInfo.getProcessInfo');
  const pages = processInfo.filter(o => o.type === 'renderer').map(o => +fs.readFileSync(`/proc/${o.id}/statm`, 'utf8').split(' ')[1]);
  return Math.max(...pages) * 4096;
}

// {"url": …, "checks": {name: arguments}} from stdin; {name: [what is wrong]} to stdout. An argument `check` names the check, if `name` does
// not. Two at once, but for those that look at what the browser as a whole does: these come last, each alone.
async function run(checks, alone) {
  held.job = JSON.parse(fs.readFileSync(0, 'utf8'));
  held.browser = await chromium.launch({executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: FLAGS});
  const out = {};
  const one = async ([name, args]) => {
    const begun = Date.now();
    try { out[name] = await checks[args.check ?? name](args); } catch (e) { out[name] = [`broke off: ${e.message.split('\n').slice(0, 3).join(' ')}`]; }
    process.stderr.write(`${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s\n`);
  };
  const all = Object.entries(held.job.checks), together = all.filter(([name]) => !alone.includes(name));
  const lane = async () => { while (together.length) await one(together.shift()); };
  await Promise.all([lane(), lane()]);
  for (const o of all.filter(([name]) => alone.includes(name))) await one(o);
  await held.browser.close();
  process.stdout.write(JSON.stringify(out));
}

module.exports = {DESK, PHONE, held, open, until, axe, memory, run};
