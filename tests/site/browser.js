// The site in a real browser. test_site.py starts this and writes one JSON line for each page to look at:
//   {"id": 1, "url": "http://127.0.0.1:8000/slowai/index.html", "checks": ["images", "keyboard"]}
// and gets one line back, {"id": 1, "images": ["what is wrong", …], "keyboard": []}. It works by hand, too:
//   echo '{"url": …, "checks": […]}' | NODE_PATH=.venv/share/slowai/site/node_modules node tests/site/browser.js
const fs = require('fs');
const readline = require('readline');
const {chromium} = require('playwright-core');
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'];
const AT_ONCE = 2, BROKEN_AT_ONCE = 4, MAX_BYTES = 2e6, JOB_MS = 900_000;
const DESK = {viewport: {width: 1280, height: 800}, reducedMotion: 'reduce', colorScheme: 'light'};
const PHONE = {...DESK, viewport: {width: 360, height: 740}, isMobile: true, hasTouch: true, deviceScaleFactor: 2};
const MODES = {light: DESK, dark: {...DESK, colorScheme: 'dark'}, phone: PHONE, dark_phone: {...PHONE, colorScheme: 'dark'}};


// Milliseconds after which something counts as never coming: what a page loads, and what it does after a click. No sound page waits for them,
// however slow the machine; a page that is broken on purpose does, so it gets less, by how long this machine took to open it.
const isBroken = url => /-broken-/.test(url);
const patience = ({start, took}) => isBroken(start) && took ? [10_000 + 10 * took, 3000 + 5 * took] : [120_000, 60_000];

// Until `ask` says yes; false if that doesn't come
async function soon(page, ask, wait = patience(page)[1]) {
  for (const until = Date.now() + wait; ;) {
    if (await ask()) return true;
    if (Date.now() > until) return false;
    await page.waitForTimeout(100);
  }
}

// For each of them a context, and tabs in it that wait for the next address: to open one takes as long as to load a page into it
const shared = {}, idle = {};

// ---- a page, and what went on while it loaded

// A new tab; `page.seen` is what goes on in it
async function tab(context) {
  const page = await context.newPage();
  const origin = () => new URL(page.start).origin;
  const short = o => o.startsWith('data:') ? o.slice(0, 40) : o.replace(origin(), '');
  const outside = o => /^(https?|wss?):/.test(o) && new URL(o).origin !== origin();
  const bad = m => /error|warning/.test(m.type());
  page.on('console', m => { if (bad(m)) page.seen.console.push(`${m.type()}: ${m.text()} (${short(m.location().url || '')})`); });
  page.on('pageerror', e => page.seen.console.push(`uncaught: ${e.message}`));
  page.on('request', r => { if (outside(r.url())) page.seen.hosts.push(`${r.resourceType()} ${r.url()}`); });
  page.on('websocket', w => page.seen.hosts.push(`websocket ${w.url()}`));
  page.on('requestfailed', r => { if (!outside(r.url())) page.seen.requests.push(`${short(r.url())}: ${r.failure().errorText}`); });
  page.on('response', r => {
    page.seen.responses.push(r);
    if (r.status() >= 400) page.seen.requests.push(`${short(r.url())}: ${r.status()}`);
  });
  return page;
}

async function open(page, url) {
  const begun = Date.now();
  Object.assign(page, {start: url, took: null});
  page.setDefaultTimeout(patience(page)[0]);
  page.seen = {console: [], requests: [], hosts: [], responses: []};
  await page.goto(url, {waitUntil: 'load'});
  await settle(page);
  page.took = Date.now() - begun;
  page.setDefaultTimeout(patience(page)[0]);
  return page;
}

// Look at an address in a tab that is kept; what goes on in it after `look` belongs to no page
async function visit(browser, mode, url, look) {
  shared[mode] ??= browser.newContext(MODES[mode]);
  const page = idle[mode]?.pop() || await tab(await shared[mode]);
  try {
    await page.setViewportSize(MODES[mode].viewport);
    await look(await open(page, url));
    await page.goto('about:blank');
  } catch (e) {
    await page.close();
    throw e;
  }
  (idle[mode] ??= []).push(page);
}

// Pictures that wait to be scrolled to are asked for now; then all that is under way comes to an end
async function settle(page) {
  await page.evaluate(async limit => {
    const imgs = [...document.images];
    imgs.forEach(o => { o.loading = 'eager'; });
    const ended = Promise.all(imgs.map(o => o.complete || new Promise(ok => { o.onload = o.onerror = ok; })));
    await Promise.race([Promise.all([ended, document.fonts.ready]), new Promise(ok => setTimeout(ok, limit))]);
    await new Promise(ok => setTimeout(ok, 120));
  }, patience(page)[1]);
}

// ---- checks of a page that lies open; each returns what is wrong

const logged = page => page.seen.console;
const failed = page => page.seen.requests;

async function hosts(page) {
  const hints = await page.$$eval('link[rel~=preconnect], link[rel~=dns-prefetch], link[rel~=prefetch], link[rel~=preload]', els =>
    els.map(o => o.href).filter(o => new URL(o).origin !== location.origin).map(o => `<link> ${o}`));
  return [...page.seen.hosts, ...hints];
}

// By what the answers say of their lengths: what a tab has from its own memory, fonts of the page before, has no body to be asked for
async function weight(page) {
  const size = async r => +r.headers()['content-length'] || (await r.body().catch(() => '')).length;
  const sizes = await Promise.all(page.seen.responses.map(async r => [await size(r), new URL(r.url()).pathname]));
  const sum = sizes.reduce((a, [n]) => a + n, 0), kb = n => `${Math.round(n / 1000)} kB`;
  const most = sizes.sort((a, b) => b[0] - a[0]).slice(0, 3).map(([n, o]) => `${o.split('/').pop()} ${kb(n)}`);
  return sum > MAX_BYTES ? [`${kb(sum)}, of which ${most.join(', ')}`] : [];
}

// No judgement yet: what is on the page, and where its links lead, which is known when all pages have been seen
const facts = page => page.evaluate(() => ({
  ids: [...document.querySelectorAll('[id], a[name]')].map(o => o.id || o.name),
  links: [...document.querySelectorAll('a[href], area[href], link[href]:not([rel=canonical])')].map(o => o.getAttribute('href')).map(o =>
    [o, URL.canParse(o, document.baseURI) ? new URL(o, document.baseURI).href : '']),
  images: document.querySelectorAll('main img, main svg').length,
  tables: document.querySelectorAll('main table').length,
  formulas: document.querySelectorAll('main .katex, main math').length,
  folds: document.querySelectorAll('main details pre').length,
  head: document.querySelector('.sl-head')?.innerText || '',
  learn: document.querySelector('.sl-learn')?.innerText || '',
  outline: document.querySelectorAll('#TOC a').length,
  previous: document.querySelector('.nav-page-previous a')?.href,
  next: document.querySelector('.nav-page-next a')?.href,
  entries: Object.fromEntries([...document.querySelectorAll('main section[id]')].map(o => [o.id, {
    parameters: o.querySelectorAll(':scope > .sl-scroll .sl-params tbody tr').length,
    source: o.querySelector('.sl-from a')?.href,
  }])),
  names: [...document.querySelectorAll('main :is(p, li, td) code')].filter(o => !o.closest('a, pre, .sl-def')).map(o => o.textContent),
}));

const images = page => page.evaluate(() => {
  const said = o => (o.getAttribute('alt') || o.getAttribute('aria-label') || o.querySelector('title')?.textContent || '').trim();
  const hidden = o => o.closest('[aria-hidden=true], [role=presentation], [role=none]');
  const name = (o, i) => `picture ${i + 1} (${(o.getAttribute('src') || 'svg').slice(0, 40)})`;
  const empty = /^\[|^\S+\.(png|jpe?g|gif|svg|webp)$|text around it|^(no description|image|figure|picture|plot|output)\b[\w .-]{0,40}$/i;
  const bad = [];
  [...document.images].forEach((o, i) => {
    if (!o.naturalWidth) bad.push(`${name(o, i)} is broken`);
    if (hidden(o)) return;
    if (!said(o)) bad.push(`${name(o, i)} has no alt text`);
    else if (empty.test(said(o))) bad.push(`${name(o, i)}: '${said(o)}' describes nothing`);
  });
  [...document.querySelectorAll('main svg')].forEach((o, i) => {
    const r = o.getBoundingClientRect();
    if (r.width > 40 && r.height > 40 && !hidden(o) && !o.closest('[aria-label]') && !said(o)) bad.push(`${name(o, i)} has no title`);
  });
  return bad;
});

const tables = page => page.evaluate(() => [...document.querySelectorAll('main table:not([role=presentation])')].flatMap((o, i) => {
  const name = `table ${i + 1} (${o.innerText.trim().slice(0, 30).replace(/\s+/g, ' ')})`;
  const full = [...o.rows].filter(r => [...r.cells].some(c => c.textContent.trim() || c.querySelector('img, svg, input')));
  return [...(full.length < 2 ? [`${name} has no rows`] : []), ...(o.querySelector('th') ? [] : [`${name} has no header cells`])];
}));

const mathematics = page => page.evaluate(() => {
  const bad = [...document.querySelectorAll('.katex-error')].map(o => `KaTeX can't read ${o.textContent} (${o.title})`);
  const unset = [...document.querySelectorAll('.math')].filter(o => !o.querySelector('.katex, math'));
  bad.push(...unset.map(o => `not set: ${o.textContent.slice(0, 60)}`));
  const blocks = 'p, li, td, th, dd, dt, h1, h2, h3, h4, h5, h6, figcaption, summary, blockquote, .description';
  for (const o of document.querySelectorAll(`main :is(${blocks})`)) {
    const copy = o.cloneNode(true);
    copy.querySelectorAll('pre, code, script, style, svg, textarea, .katex, .math, table, ul, ol').forEach(c => c.remove());
    const raw = copy.textContent.match(/\$\$|\$[^\s$](?:[^$\n]*[^\s$])?\$|\\[([]|\\begin\{/);
    if (raw) bad.push(`left as it was written: ${copy.textContent.slice(Math.max(0, raw.index - 10), raw.index + 50).trim()}`);
  }
  return [...new Set(bad)];
});

const headings = page => page.evaluate(() => {
  const bad = [], shown = o => o.checkVisibility({visibilityProperty: true});
  const h1 = [...document.querySelectorAll('h1')].filter(shown);
  if (h1.length !== 1) bad.push(`${h1.length} h1: ${h1.map(o => o.innerText).join(' | ')}`);
  let last = 0;
  for (const o of [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')].filter(shown)) {
    const level = +o.tagName[1];
    if (!o.innerText.trim()) bad.push(`an empty ${o.tagName}`);
    if (level > last + 1) bad.push(`from h${last} to h${level}: ${o.innerText.slice(0, 60)}`);
    last = level;
  }
  return bad;
});

// axe-core's rules, all but colours: it leaves most of the words in code undecided (hundreds on a page), so that is `contrast` below
// No rule that is left is about a span without anything but a class: those that colour code, two thirds of a page, go first. That comes
// last, then, of all that is looked at.
async function axe(page) {
  await page.evaluate(() => {
    for (const pre of document.querySelectorAll('pre')) {
      for (const o of pre.querySelectorAll('span')) if (o.getAttributeNames().every(k => k === 'class')) o.replaceWith(...o.childNodes);
      pre.normalize();
    }
  });
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'],
    rules: {'color-contrast': {enabled: false}},
    resultTypes: ['violations'],
  }));
  return found.violations.map(v => `${v.id} (${v.help}), ${v.nodes.length} times: ${v.nodes[0].html.slice(0, 120)}`);
}

// Each piece of text that can be seen against what lies behind it, by the formula of WCAG 2
const contrast = (page, within = 'body', ink = false) => page.evaluate(([within, ink]) => {
  const closed = [...document.querySelectorAll('details:not([open])')];
  closed.forEach(o => { o.open = true; });
  const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1}), known = {};
  const cx = canvas.getContext('2d', {willReadFrequently: true});
  const rgba = s => known[s] ??= (() => {
    cx.clearRect(0, 0, 1, 1);
    cx.fillStyle = s;
    cx.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = cx.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  })();
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = v => v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const lum = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ratio = (a, b) => (Math.max(lum(a), lum(b)) + 0.05) / (Math.min(lum(a), lum(b)) + 0.05);
  const hex = c => '#' + c.slice(0, 3).map(v => Math.round(v).toString(16).padStart(2, '0')).join('');
  const probe = document.body.appendChild(document.createElement('i'));
  probe.style.background = 'Canvas';
  const paper = ink ? [255, 255, 255, 1] : rgba(getComputedStyle(probe).backgroundColor);
  probe.remove();

  const under = new Map();
  const behind = el => {   // the colours under an element, how opaque its text is, whether it is hidden or cut away
    if (!el) return {bg: paper, alpha: 1, picture: false, cut: false};
    if (under.has(el)) return under.get(el);
    const below = behind(el.parentElement), s = getComputedStyle(el), c = rgba(s.backgroundColor), found = {
      cut: below.cut || s.clip !== 'auto' || /inset\(50%|inset\(100%/.test(s.clipPath),
      alpha: below.alpha * s.opacity,
      bg: ink || !c[3] ? below.bg : over(c, below.bg),   // a printer leaves backgrounds out
      picture: !ink && c[3] < 1 && (below.picture || s.backgroundImage !== 'none'),
    };
    under.set(el, found);
    return found;
  };
  const underSvg = (el, fallback) => {   // what is drawn behind a text in a drawing
    el.scrollIntoView({block: 'center', inline: 'center'});
    const r = el.getBoundingClientRect();
    for (const o of document.elementsFromPoint(r.x + r.width / 2, r.y + r.height / 2)) {
      if (!o.ownerSVGElement) break;
      if (el.contains(o) || o.closest('text')) continue;
      const fill = getComputedStyle(o).fill;
      if (/^(rgb|color|ok)/.test(fill) && rgba(fill)[3] === 1) return rgba(fill);
    }
    return fallback;
  };

  const found = {};
  const judge = (el, style, text) => {
    const under = behind(el);
    if (under.cut || under.alpha < 0.05) return;
    const svg = el.closest('svg text'), colour = rgba(svg ? style.fill : style.color);
    const bg = svg ? underSvg(svg, under.bg) : under.bg, px = parseFloat(style.fontSize);
    const front = over([...colour.slice(0, 3), colour[3] * under.alpha], bg), got = ratio(front, bg);
    const wanted = px >= 24 || (px >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    if (got >= wanted && !under.picture) return;
    const why = under.picture ? 'text over a picture or gradient' : `${hex(front)} on ${hex(bg)} is ${got.toFixed(2)}, not ${wanted}`;
    const of = el.closest('pre') ? 'code' : (el.closest('[id]:is(nav, header, main, footer)') || document.body).id || 'body';
    const key = `${why}: <${el.tagName.toLowerCase()}${el.className && el.className.split ? ' class=' + el.className : ''}> in ${of}`;
    (found[key] ??= []).push(text.trim().slice(0, 20));
  };
  const root = document.querySelector(within) || document.body, walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const el = n.parentElement;
    if (!n.data.trim() || /^(SCRIPT|STYLE|NOSCRIPT|TEMPLATE|OPTION)$/.test(el.tagName) || el.closest(':disabled, .katex-mathml')) continue;
    if (!el.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const r = el.getBoundingClientRect();
    if (r.width > 1 && r.height > 1) judge(el, getComputedStyle(el), n.data);
  }
  const empty = [...root.querySelectorAll('[placeholder]')].filter(o => o.checkVisibility());
  empty.forEach(o => judge(o, getComputedStyle(o, '::placeholder'), o.placeholder));
  closed.forEach(o => { o.open = false; });
  return Object.entries(found).map(([k, v]) => `${k}, ${v.length} times, such as '${v[0]}'`);
}, [within, ink]);

// The page that was looked at on a phone, as wide as on a desk
async function dark(page) {
  await page.setViewportSize(DESK.viewport);
  const bg = await brightness(page);
  if (bg > 0.2) return [`a browser set to dark sees a page of brightness ${bg.toFixed(2)}`];
  return [...await contrast(page), ...(await images(page)).filter(o => /broken/.test(o))];
}

const brightness = page => page.evaluate(() => {
  const colours = [document.body, document.documentElement].map(o => getComputedStyle(o).backgroundColor.match(/[\d.]+/g).map(Number));
  const solid = colours.find(c => c.length < 4 || c[3]);
  return solid ? solid.slice(0, 3).reduce((a, b) => a + b) / 765 : 1;
});

// Nothing sticks out of a phone: neither the page as a whole, nor a piece of it that is cut off and can't be scrolled to
const phone = page => page.evaluate(() => {
  const wide = document.scrollingElement.scrollWidth, width = 360, bad = wide > width ? [`the page is ${wide} pixels wide`] : [];
  const out = [];
  for (const o of document.querySelectorAll('main *')) {
    const r = o.getBoundingClientRect();
    if (r.right + scrollX <= width + 1 || !r.width || !r.height) continue;
    if (o.closest('.katex-mathml, svg *') || !o.checkVisibility({visibilityProperty: true})) continue;
    let box = o.parentElement;
    while (box && !/auto|scroll/.test(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (!box && !out.some(p => p.contains(o))) out.push(o);
  }
  return bad.concat(out.slice(0, 5).map(o => `<${o.tagName.toLowerCase()} class="${o.getAttribute('class') || ''}"> ends at ` +
    `${Math.round(o.getBoundingClientRect().right)}: ${o.textContent.trim().slice(0, 40)}`));
});

// ---- what a reader does; each starts from a fresh page

// The element that has the focus: what it is, where, whether the reader sees it, and whether the one before looked different with the focus
const focus = page => page.evaluate(() => {
  const look = o => [o, o.parentElement].map(e => {
    const s = getComputedStyle(e), ring = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0 ? s.outline : 'none';
    return [ring, s.boxShadow, s.borderColor, s.backgroundColor, s.textDecorationLine, s.color].join();
  }).join('|');
  const was = window.focusWas, o = document.activeElement;
  const unseen = was && was.look === look(was.el) ? was.name : null;
  if (!o || o === document.body || o === document.documentElement) { window.focusWas = null; return {none: true, unseen}; }
  const r = o.getClientRects()[0] || o.getBoundingClientRect(), x = r.x + Math.min(r.width / 2, 40), y = r.y + Math.min(r.height / 2, 20);
  const at = document.elementFromPoint(x, y);
  const said = (o.getAttribute('aria-label') || o.innerText || o.title || o.placeholder || '').trim().slice(0, 40).replace(/\s+/g, ' ');
  const name = `<${o.tagName.toLowerCase()}> '${said}'`;
  const hides = !r.width || !r.height ? 'has no size' : x < 0 || y < 0 || x > innerWidth || y > innerHeight ? 'is outside the window' :
    !at || !(o.contains(at) || at.contains(o)) ? `lies under <${at?.tagName.toLowerCase()} class="${at?.getAttribute('class')}">` : null;
  window.focusWas = {el: o, look: look(o), name};
  return {
    name, unseen, hides, href: o.getAttribute('href'), main: !!o.closest('main'),
    search: o.matches('input[type=search], [role=searchbox], [role=combobox]'),
    sidebar: !!o.closest('#quarto-sidebar, aside, nav.sidebar'),
    scheme: /theme|dark|light|scheme/i.test(name + o.title + o.className),
  };
});

async function keyboard(page) {
  const bad = [], reached = {}, still = () => page.addStyleTag({content: '* { transition: none !important; animation: none !important }'});
  await still();
  await page.keyboard.press('Tab');
  const first = await focus(page);
  if (!first.href?.startsWith('#')) bad.push(`the first Tab reaches ${first.name}, no link past the navigation`);
  else {
    if (first.hides) bad.push(`the skip link ${first.hides}`);
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    const next = await focus(page);
    if (!next.main) bad.push(`after the skip link, Tab reaches ${next.name}, not the text`);
    await page.goto(`${page.start}?again`);   // without the #, or Tab would go on from there
    await still();
  }
  const stops = new Set();
  for (let i = 0; ; i++) {
    if (i === 1500) { bad.push('Tab never comes to an end'); break; }
    await page.keyboard.press('Tab');
    const f = await focus(page);
    if (f.unseen) bad.push(`${f.unseen} looks the same with and without the focus`);
    if (f.none) break;
    if (f.hides) bad.push(`${f.name} has the focus and ${f.hides}`);
    for (const k of ['search', 'sidebar', 'main', 'scheme']) if (f[k]) reached[k] = true;
    stops.add(f.name);
  }
  const all = {search: 'the search', sidebar: 'the list of pages', main: 'the links of the text', scheme: 'the switch of light and dark'};
  for (const [k, what] of Object.entries(all)) {
    if (!reached[k]) bad.push(`Tab, ${stops.size} times, never reaches ${what}`);
  }
  return bad.length > 12 ? [...bad.slice(0, 12), `… and ${bad.length - 12} more`] : bad;
}

const RESULTS = '.search-result, [role=listbox] [role=option], .smalldocs-search-results a';

// Is the place where a search ends the one that was meant: a heading or an entry with the name, in view?
async function landed(page, name) {
  await page.waitForLoadState('load');
  await settle(page);
  const where = new URL(page.url()), id = decodeURIComponent(where.hash.slice(1));
  const there = !id || await page.evaluate(id => !!document.getElementById(id), id);
  if (!there) return [`the result leads to ${where.hash}, which is not on ${where.pathname}`];
  const seen = await page.evaluate(name => [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6, dt, caption)')].some(o => {
    const r = o.getBoundingClientRect(), at = document.elementFromPoint(r.x + Math.min(20, r.width / 2), r.y + r.height / 2);
    return o.textContent.includes(name) && r.top >= 0 && r.bottom <= innerHeight && at && (o.contains(at) || at.contains(o));
  }), name);
  return seen ? [] : [`the result leads to ${where.pathname}${where.hash}, where no heading with '${name}' is in view`];
}

async function found(page, name) {
  const first = page.locator(RESULTS).filter({visible: true}).first();
  try { await first.waitFor(); } catch { return [null, [`no results for '${name}'`]]; }
  await page.waitForTimeout(300);
  await soon(page, async () => (await first.innerText()).includes(name));
  const said = await first.innerText();
  return [first, said.includes(name) ? [] : [`the first result for '${name}' is '${said.slice(0, 60)}'`]];
}

async function search(page, name = 'ResidualConvBlock') {
  const box = page.locator('input[type=search], [role=searchbox], [role=combobox]').filter({visible: true}).first();
  if (!await box.count()) return ['no search box can be seen'];
  await box.click();
  await box.pressSequentially(name);
  const [first, bad] = await found(page, name);
  if (!first) return bad;
  const pale = await contrast(page, ':has(> .search-result), [role=listbox], .smalldocs-search-results');
  await first.click();
  await page.waitForURL(o => o.href !== page.start).catch(() => bad.push('a click on the result leads nowhere'));
  return [...bad, ...pale, ...await landed(page, name)];
}

async function search_keys(page, name = 'ResidualConvBlock') {
  await page.keyboard.press('/');
  const at = await focus(page);
  if (!at.search) return ["'/' does not go to the search"];
  await page.keyboard.type(name);
  const [first, bad] = await found(page, name);
  if (!first) return bad;
  await page.keyboard.press('Escape');
  if (await first.isVisible()) bad.push('Escape leaves the results open');
  await page.keyboard.press('/');
  await page.keyboard.press('Control+A');
  await page.keyboard.type(name);
  await first.waitFor().catch(() => bad.push('the results do not come back'));
  await page.waitForTimeout(300);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForURL(o => o.href !== page.start).catch(() => bad.push('Enter on a result leads nowhere'));
  return [...bad, ...await landed(page, name)];
}

const SWITCH = ['button', 'link', 'switch', 'checkbox'];
async function scheme_switch(page) {
  for (const role of SWITCH) {
    const o = page.getByRole(role, {name: /theme|dark|light|scheme/i}).filter({visible: true}).first();
    if (await o.count()) return o;
  }
}

async function scheme(page) {
  const bad = [], is = want => soon(page, async () => (await brightness(page) < 0.5) === (want === 'dark'));
  const o = await scheme_switch(page);
  if (!o) return ['no switch between light and dark'];
  if (!await is('light')) bad.push('a browser set to light sees a dark page');
  await o.click();
  if (!await is('dark')) return [...bad, 'a click on the switch leaves the page light'];
  await page.reload();
  if (!await is('dark')) bad.push('after a reload the choice is forgotten');
  const other = await page.evaluate(() => [...document.links].find(a => a.origin === location.origin && /html$/.test(a.pathname) &&
    a.pathname !== location.pathname).href);
  await page.goto(other);
  if (!await is('dark')) bad.push('on the next page the choice is forgotten');
  const again = await scheme_switch(page);
  await again.focus();
  await page.keyboard.press('Enter');
  if (!await is('light')) bad.push('Enter on the switch does nothing');
  return bad;
}

async function folding(page) {
  const bad = [], folds = page.locator('main details:has(pre) > summary').filter({visible: true});
  if (!await folds.count()) return ['no folded code'];
  const one = folds.first(), code = page.locator('main details pre').first(), start = await code.isVisible();
  await one.click();
  if (await code.isVisible() === start) bad.push('a click does not fold or unfold');
  await one.focus();
  await page.keyboard.press('Enter');
  if (await code.isVisible() !== start) bad.push('Enter does not fold or unfold');
  return bad;
}

// One switch opens all that is folded, but no solution; the next page knows of it
async function switching(page) {
  const bad = [], button = page.getByRole('button', {name: /all code|fold/i});
  const closed = () => page.$$eval('main details.code-fold', els => [els.filter(o => !o.open).length, els.length]);
  if (!await button.filter({visible: true}).count()) return ['no button shows all code'];
  let [n, all] = await closed();
  if (!all || n < all) bad.push(`${all - n} of ${all} folds stand open before anybody asked`);
  await button.click();
  [n, all] = await closed();
  if (n) bad.push(`after a click ${n} of ${all} folds are still closed`);
  if (await page.$('main details.sl-solution[open]')) bad.push('the switch gives solutions away');
  await page.reload();
  if ((await closed())[0]) bad.push('after a reload the choice is forgotten');
  await button.click();
  [n, all] = await closed();
  if (n < all) bad.push(`after another click ${all - n} of ${all} folds are still open`);
  await page.reload();
  [n, all] = await closed();
  if (n < all) bad.push('after another reload the choice is forgotten');
  return bad;
}

async function copying(page) {
  const code = page.locator('main pre').filter({visible: true}).first(), want = (await code.innerText()).trim();
  await code.hover();
  const button = page.getByRole('button', {name: /copy/i}).first();
  if (!await button.count()) return ['no button copies code'];
  await button.click();
  let got;
  await soon(page, async () => (got = (await page.evaluate(() => navigator.clipboard.readText())).trim()) === want);
  return got === want ? [] : [`copied '${got.slice(0, 40)}' instead of '${want.slice(0, 40)}'`];
}

// On paper: no navigation, dark ink; a reader in dark mode prints, too
async function print(page) {
  await page.emulateMedia({media: 'print'});
  const left = await page.$$eval('header nav, #quarto-sidebar, #TOC, input, .code-copy-button, .sl-do', els =>
    els.filter(o => o.checkVisibility({opacityProperty: true, visibilityProperty: true})).map(o =>
      `<${o.tagName.toLowerCase()} id="${o.id}" class="${o.className}"> is printed`));
  return [...left, ...await contrast(page, 'main', true)];
}

// On a phone the list of pages is behind a button, and so may be the search
async function phone_menu(page) {
  const bad = [], toggles = page.getByRole('button', {name: /navigation|sidebar|menu|pages/i}).filter({visible: true});
  const other = () => page.evaluateHandle(() => [...document.querySelectorAll(':is(nav, aside) a[href$=".html"]')].find(o => {
    const r = o.getBoundingClientRect(), at = document.elementFromPoint(r.x + Math.min(20, r.width / 2), r.y + r.height / 2);
    const list = o.closest('nav, aside').querySelectorAll('a[href$=".html"]');
    return at && o.contains(at) && o.pathname !== location.pathname && list.length > 4;
  }));
  let link = (await other()).asElement();
  const all = await toggles.all(), late = Date.now() + patience(page)[1];
  for (let wait = 1000; !link && all.length && Date.now() < late; wait *= 2) {   // one button of several opens it; each gets its time, and then more
    for (const o of all) {
      await o.tap();
      await soon(page, async () => (link = (await other()).asElement()), wait);
      if (link) break;
    }
  }
  if (!link) return ['no button opens the list of pages'];
  await link.tap();
  await page.waitForURL(o => o.href !== page.start).catch(() => bad.push('a tap on another page leads nowhere'));
  return bad;
}

// ---- the jobs

// What is only looked at shares a context, and with it the browser's cache, with all other pages; what a reader does starts from a new one
const LOOK = {
  light: {console: logged, requests: failed, hosts, facts, images, tables, mathematics, headings, contrast, weight, axe},
  dark_phone: {phone, dark},
};
const DO = {
  light: {keyboard, search, search_keys, scheme, folding, switching, copying},
  dark: {search_dark: page => search(page), print},
  phone: {phone_menu},
};

async function job(browser, {url, checks}) {
  const out = {};
  const attempt = async (name, run) => {
    try { out[name] = await run(); } catch (e) { out[name] = [`broke off: ${e.message.split('\n').slice(0, 3).join(' ')}`]; }
  };
  for (const [mode, of] of Object.entries(LOOK)) {
    const wanted = Object.keys(of).filter(o => checks.includes(o));
    if (!wanted.length) continue;
    await visit(browser, mode, url, async page => { for (const o of wanted) await attempt(o, () => of[o](page)); });
  }
  for (const [mode, of] of Object.entries(DO)) {
    for (const o of Object.keys(of).filter(o => checks.includes(o))) {
      const context = await browser.newContext({...MODES[mode], permissions: ['clipboard-read', 'clipboard-write']});
      const page = await open(await tab(context), url);
      page.start = page.url();
      await attempt(o, () => of[o](page));
      if (page.seen.console.length) out[o] = out[o].concat(page.seen.console);
      await context.close();
    }
  }
  return out;
}

async function main() {
  const browser = await chromium.launch({executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: FLAGS});
  const waiting = [];
  let busy = 0, closed = false;
  const next = async () => {
    if (closed && !busy && !waiting.length) { await browser.close(); process.exit(0); }
    if (!waiting.length || busy >= (isBroken(waiting[0].url) ? BROKEN_AT_ONCE : AT_ONCE)) return;   // what is broken mostly waits
    const {id, ...what} = waiting.shift();
    busy++;
    const late = new Promise((_, no) => setTimeout(() => no(new Error(`not done after ${JOB_MS / 1000} s`)), JOB_MS).unref());
    let answer;
    try { answer = await Promise.race([job(browser, what), late]); }
    catch (e) { answer = {error: e.message.split('\n').slice(0, 4).join(' ')}; }
    process.stdout.write(JSON.stringify({id, ...answer}) + '\n');
    busy--;
    next();
  };
  readline.createInterface({input: process.stdin}).on('line', o => { if (o.trim()) { waiting.push(JSON.parse(o)); next(); } })
    .on('close', () => { closed = true; next(); });
}

main().catch(e => { console.error(e.message); process.exit(1); });
