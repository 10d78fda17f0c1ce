// The page that `slowai_demo` makes, in a real browser. test_demo.py starts this with {"url": …, "files": …, "checks": {name: arguments}}
// on stdin and gets {name: [what is wrong]} back
const fs = require('fs');
const path = require('path');
const {DESK, PHONE, held, open: openAt, until, axe, memory, run} = require('./common.js');

// A fresh page of one of the demos
async function open(which, mode = DESK, prepare = null) {
  const page = await openAt(which.startsWith('file:') ? which : `${held.job.url}${which}/index.html`, mode, prepare);
  if (!which.startsWith('file:') && !prepare) await page.locator('#bring').waitFor();
  return page;
}

const file = name => path.join(held.job.files, name);
const cards = page => page.locator('article').count();
const state = page => page.locator('#state').innerText();
async function answered(page, n) { await until(async () => await cards(page) >= n, `${n} answers`, () => state(page)); }

const CHECKS = {
  // Probabilities of many pictures against predict's: [[demo, file, [probabilities], words]]
  async equal({jobs, atol}) {
    const bad = [];
    for (const demo of new Set(jobs.map(o => o[0]))) {
      const page = await open(demo), mine = jobs.filter(o => o[0] === demo);
      const said = await page.evaluate(async ([names, base]) => {
        const {Network} = await import('./web/network.js'), net = new Network('./'), out = [];
        for (const o of names) {
          try {
            const blob = await (await fetch(base + encodeURIComponent(o))).blob(), {probs, words} = await net.ask({file: blob});
            out.push({probs: [...probs], words});
          } catch (e) { out.push({error: e.message}); }
        }
        return out;
      }, [mine.map(o => o[1]), `${held.job.url}files/`]);
      said.forEach(({probs, words, error}, i) => {
        const [, name, want, did] = mine[i], best = a => a.indexOf(Math.max(...a));
        if (error) return bad.push(`${demo}, ${name}: ${error}`);
        const off = Math.max(...want.map((p, k) => Math.abs(p - probs[k])));
        if (off > atol || best(probs) !== best(want)) bad.push(`${demo}, ${name}: off by ${off.toExponential(1)}`);
        if (did !== null && words !== did) bad.push(`${demo}, ${name}: '${words}' instead of '${did}'`);
      });
      bad.push(...page.wrong);
      await page.context().close();
    }
    return bad;
  },

  // The ways in; the network is cut off as soon as the engine is there
  async ways_in({demo, pictures}) {
    const page = await open(demo), bad = [];
    const heavy = await page.evaluate(() => performance.getEntriesByType('resource').filter(o => /wasm|onnx/.test(o.name)).length);
    if (heavy) bad.push('the engine is fetched before anybody asks');
    await page.setInputFiles('#files', pictures.map(file));
    await answered(page, pictures.length);
    await page.context().setOffline(true);
    let n = pictures.length;
    const [type, data] = ['image/png', [...fs.readFileSync(file(pictures[0]))]];
    for (const kind of ['drop', 'paste']) {
      await page.evaluate(([kind, type, data]) => {
        const dt = new DataTransfer();
        dt.items.add(new File([new Uint8Array(data)], 'one.png', {type}));
        const init = {bubbles: true, cancelable: true, dataTransfer: dt, clipboardData: dt};
        document.body.dispatchEvent(kind === 'drop' ? new DragEvent('drop', init) : new ClipboardEvent('paste', init));
      }, [kind, type, data]);
      await answered(page, ++n).catch(() => bad.push(`${kind}: no answer`));
    }
    if (await page.locator('#pad').isVisible()) {
      const r = await page.locator('#pad').boundingBox();
      await page.mouse.move(r.x + 60, r.y + 60);
      await page.mouse.down();
      await page.mouse.move(r.x + 200, r.y + 200, {steps: 8});
      await page.mouse.up();
      await answered(page, ++n).catch(() => bad.push('drawing: no answer'));
      await page.locator('#clear').click();
    } else bad.push('nothing to draw on');
    await page.locator('#camera').click();
    await page.waitForFunction(() => document.getElementById('video').videoWidth > 0);
    await page.locator('#shoot').click();
    await answered(page, ++n).catch(() => bad.push('camera: no answer'));
    await page.locator('#stop').click();
    if (!/\d+ ms/.test(await state(page))) bad.push(`the status says '${await state(page)}'`);
    const maps = await page.locator('#layers canvas').count();
    if (!maps) bad.push('no maps are shown');
    await page.getByRole('button', {name: /^Layer by layer/}).last().click();
    await until(async () => (await page.locator('article').last().getAttribute('aria-current')) === 'true', 'the maps of an older answer', () => state(page));
    return [...bad, ...page.wrong];
  },

  // By keyboard alone: an example by Enter
  async keyboard({demo}) {
    const page = await open(demo), bad = [];
    let reached = false;
    for (let i = 0; i < 20 && !reached; i++) {
      await page.keyboard.press('Tab');
      reached = await page.evaluate(() => !!document.activeElement.closest('#examples'));
    }
    if (!reached) return ['Tab never reaches the examples'];
    await page.keyboard.press('Enter');
    await answered(page, 1);
    return [...bad, ...page.wrong];
  },

  // What is no ordinary picture: a sentence, and the page goes on. {file: a part of what is to be said}
  async strange({demo, says, good}) {
    const page = await open(demo), bad = [];
    for (const [name, words] of Object.entries(says)) {
      const all = () => page.locator('#answers > *').count(), before = await all();
      await page.setInputFiles('#files', file(name));
      await until(async () => await all() > before, `an answer to ${name}`, () => state(page));
      const said = await page.locator('#answers > *').first().innerText();
      if (!said.includes(words)) bad.push(`${name}: '${said.slice(0, 160)}', not '${words}'`);
    }
    const before = await cards(page);
    await page.setInputFiles('#files', file(good));
    await answered(page, before + 1);
    return [...bad, ...page.wrong];
  },

  // The page answers while a large picture is decoded
  async responsive({demo, picture}) {
    const page = await open(demo);
    await page.setInputFiles('#files', file(picture));
    const {longest, all} = await page.evaluate(async () => {
      const start = performance.now();
      let last = start, longest = 0;
      while (!document.querySelector('article, .bad')) {
        await new Promise(ok => setTimeout(ok, 10));
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      }
      return {longest, all: last - start};
    });
    const still = `the page stood still for ${Math.round(longest)} of the ${Math.round(all)} ms that the picture took`;
    return longest > all/2 ? [still] : page.wrong;   // if the page itself decodes it, for nearly all of them
  },

  // Fifty pictures in a row: the memory of all the browser's processes
  async memory({demo, pictures, most}) {
    const page = await open(demo), n = {asked: 0};
    const round = async times => {
      for (let i = 0; i < times; i++) {
        await page.setInputFiles('#files', file(pictures[n.asked++ % pictures.length]));
        await until(async () => /\d+ ms/.test(await state(page)), 'an answer', () => state(page));
        await page.evaluate(() => { document.getElementById('state').textContent = ''; });
      }
      return memory(page);
    };
    const before = await round(60), after = await round(50), grown = (after - before) / 1e6;
    process.stderr.write(`memory: ${(before / 1e6).toFixed(0)} MB, after 50 more ${(after / 1e6).toFixed(0)} MB\n`);
    return grown > most ? [`50 pictures added ${grown.toFixed(0)} MB`] : page.wrong;
  },

  async names({demo, picture, classes}) {
    const page = await open(demo);
    await page.setInputFiles('#files', file(picture));
    await answered(page, 1);
    const shown = await page.locator('article li span:first-of-type').allTextContents(), bad = [];
    if (shown.length !== classes.length || shown.some(o => !classes.includes(o))) bad.push(`shown are ${JSON.stringify(shown)}`);
    if (await page.locator('main b, main img[src=x]').count()) bad.push('a name became HTML');
    return [...bad, ...page.wrong];
  },

  async from_file({folder}) {
    const page = await open(`file://${folder}/index.html`);
    const said = await page.locator('#trouble').innerText();
    return said.includes('http.server') ? [] : [`the page says '${said}'`];
  },

  async old_browser({demo}) {
    const page = await open(demo, DESK, () => { WebAssembly.validate = () => false; });
    await page.locator('#bring').waitFor();
    await page.locator('#examples button').first().click();
    await page.locator('#trouble').waitFor();
    const said = await page.locator('#trouble').innerText();
    return said.includes('too old') ? page.wrong : [`the page says '${said}'`];
  },

  // axe's rules, a phone in dark mode with fingers
  async everybody({demo, pictures}) {
    const bad = [];
    for (const mode of [DESK, {...DESK, colorScheme: 'dark'}, PHONE]) {
      const page = await open(demo, mode);
      await page.setInputFiles('#files', pictures.map(file));
      await answered(page, pictures.length);
      if (mode === PHONE) {
        await page.locator('#pad').tap();
        await answered(page, pictures.length + 1);
        const wide = await page.evaluate(() => document.scrollingElement.scrollWidth);
        if (wide > 360) bad.push(`on a phone the page is ${wide} pixels wide`);
      }
      bad.push(...(await axe(page, 'body')).map(o => `${mode.colorScheme || 'light'}: ${o}`));
      bad.push(...page.wrong);
      await page.context().close();
    }
    return bad;
  },

  // How long a picture takes, ms: said, not judged
  async speed({demos, pictures}) {
    for (const demo of demos) {
      const page = await open(demo);
      const ms = await page.evaluate(async ([names, base]) => {
        const {Network} = await import('./web/network.js'), net = new Network('./'), out = [], round = [];
        const files = await Promise.all(names.map(async o => (await fetch(base + encodeURIComponent(o))).blob()));
        for (let i = 0; i < 40; i++) {
          const begun = performance.now();
          await net.ask({file: files[i % files.length], maps: true});
          if (i > 4) out.push(performance.now() - begun);
        }
        return out.sort((a, b) => a - b);
      }, [pictures, `${held.job.url}files/`]);
      process.stderr.write(`${demo}: median ${ms[ms.length >> 1].toFixed(1)} ms, most ${ms.at(-1).toFixed(1)} ms\n`);
      await page.context().close();
    }
    return [];
  },
};

run(CHECKS, ['memory', 'responsive', 'speed']).catch(e => { console.error(e.message); process.exit(1); });
