// The live figures of the site in a real browser. test_live.py starts this as test_demo.py starts demo.js
const path = require('path');
const {DESK, PHONE, held, open, until, axe, memory, run} = require('./common.js');

const box = page => page.locator('.sl-live');
const said = page => box(page).locator('output').last().innerText();
const play = (page, name) => page.locator(`figure[data-live=${name}] + .sl-play-row button`);

// A page of the site with one of its figures at work
async function start(where, name, mode = DESK, prepare = null, drawn = null) {
  const page = await open(held.job.url + where, mode, prepare);
  if (drawn !== null) await page.route('**/manifest.json', async o => o.fulfill({json: {...await (await o.fetch()).json(), drawn}}));
  const heavy = await page.evaluate(() => performance.getEntriesByType('resource').filter(o => /wasm|onnx|live\/web\/.*js/.test(o.name)).length);
  if (heavy) page.wrong.push('the figure is fetched before anybody asks');
  await play(page, name).click();
  await page.locator('.sl-live:not([hidden]) > :not([role=status])').first().waitFor();
  return page;
}

// What a network says of the figure's pictures against PyTorch: [{switches, probs: [[…], …]}] of the first `n` pictures
async function equal(page, name, expected, n, atol) {
  const found = await page.evaluate(async ([name, ways, n]) => {
    const {Network} = await import('./live/web/network.js'), {data, pixelsOf} = await import('./live/parts.js'), out = [];
    const folder = new URL(`live/${name}/`, location.href), net = new Network(folder.href), {about, pictures} = await data(folder);
    for (const switches of ways) {
      out.push([]);
      for (const o of pictures.slice(0, n)) out.at(-1).push([...(await net.ask({pixels: pixelsOf(o, about), inputs: {switches}})).probs]);
    }
    net.worker.terminate();
    return out;
  }, [name, expected.inputs, n]);
  const off = expected.probs.map((a, w) => Math.max(...a.slice(0, n).flatMap((o, i) => o.map((p, k) => Math.abs(p - found[w][i][k])))));
  return off.flatMap((o, w) => o <= atol ? [] : [`${name}, switched ${expected.inputs[w]}: off by ${o.toExponential(1)}`]);
}

const CHECKS = {
  // Nine numbers, a picture, a place: by keyboard, by pointer, with a file of one's own, with the network cut off
  async windows({where, cases, good, bad: files}) {
    const page = await start(where, 'windows'), bad = [];
    await page.context().setOffline(true);
    const off = await page.evaluate(async cases => {
      const {answers} = await import('./live/windows.js');
      return cases.map(({pixels, size: [h, w], k, want}) => Math.max(...answers(pixels, w, h, k).map((o, i) => Math.abs(o - want[i]))));
    }, cases);
    off.forEach((o, i) => { if (!(o < 1e-4)) bad.push(`window ${i} is off by ${o} from torch's convolution`); });
    const changed = async (what, act) => {
      const before = await said(page);
      await act();
      await until(async () => await said(page) !== before, `${what} changes nothing`, () => said(page)).catch(e => bad.push(e.message));
    };
    const numbers = box(page).locator('input[type=number]'), canvas = box(page).locator('.sl-row > canvas').first();
    await changed('a number', async () => { await numbers.first().focus(); await page.keyboard.press('ArrowUp'); });
    if (await box(page).locator('select').inputValue() !== '') bad.push('a changed window still goes by a known name');
    for (const o of ['blur', 'learnt by a network']) await changed(o, () => box(page).locator('select').selectOption(o));
    await changed('an arrow key', async () => { await box(page).getByRole('slider', {name: 'Column'}).focus(); await page.keyboard.press('ArrowRight'); });
    await changed('another picture', async () => { await box(page).locator('input[type=radio]').first().focus(); await page.keyboard.press('ArrowRight'); });
    await canvas.scrollIntoViewIfNeeded();
    const r = await canvas.boundingBox();
    await changed('the pointer', () => page.mouse.move(r.x + r.width * .5, r.y + r.height * .6));
    const [row, column] = await Promise.all(['Row', 'Column'].map(o => box(page).getByRole('slider', {name: o}).inputValue()));
    if (+row !== Math.floor(.6 * 28) - 1 || +column !== 13) bad.push(`the window is at ${row}, ${column}, not under the pointer`);
    for (const [name, words] of Object.entries(files)) {
      await box(page).locator('input[type=file]').setInputFiles(path.join(held.job.files, name));
      await until(async () => (await box(page).locator('[role=alert]').innerText()).includes(words), name, () => box(page).locator('[role=alert]').innerText())
        .catch(e => bad.push(e.message));
    }
    await changed('a file', () => box(page).locator('input[type=file]').setInputFiles(path.join(held.job.files, good)));
    return [...bad, ...page.wrong];
  },

  async skips({where, expected}) {
    const page = await start(where, 'skips'), bad = await equal(page, 'skips', expected, 6, 1e-4);
    await page.context().setOffline(true);
    const answer = async (what, act) => {
      const before = await said(page);
      await act();
      await until(async () => await said(page) !== before, `${what} changes nothing`, () => said(page)).catch(e => bad.push(e.message));
    };
    await until(async () => /\d+ of the 40/.test(await box(page).innerText()), 'how many are right', () => box(page).innerText());
    await answer('the switch', () => box(page).locator('select').selectOption('1'));
    await answer('another picture', async () => { await box(page).locator('input[type=radio]:checked').focus(); await page.keyboard.press('ArrowRight'); });
    await box(page).locator('.sl-pad').scrollIntoViewIfNeeded();
    const r = await box(page).locator('.sl-pad').boundingBox();
    await answer('drawing', async () => {
      await page.mouse.move(r.x + 30, r.y + 30);
      await page.mouse.down();
      await page.mouse.move(r.x + 90, r.y + 100, {steps: 4});
      await page.mouse.up();
    });
    if (await box(page).locator('.sl-layers canvas').count() < 5) bad.push('maps are missing');
    const round = async () => {   // fifty pictures in a row
      for (let i = 0; i < 50; i++) await box(page).locator('input[type=radio]').nth(i % 40).evaluate(o => o.click());
      await answer('the last of fifty', () => box(page).locator('input[type=radio]').nth(20).evaluate(o => o.click()));
      return memory(page);
    };
    const grown = -await round() + await round();
    if (grown > 60e6) bad.push(`fifty pictures added ${(grown / 1e6).toFixed(0)} MB`);
    return [...bad, ...page.wrong];
  },

  async memory({where, expected}) {
    const page = await start(where, 'memory'), bad = await equal(page, 'memory', expected, 4, 1e-4);
    await page.context().setOffline(true);
    const sums = () => box(page).locator('tbody tr').nth(1).innerText(), range = box(page).locator('input[type=range]');
    for (const [key, at] of [['Home', 0], ['End', +await range.getAttribute('max')]]) {
      await range.focus();
      await page.keyboard.press(key);
      const want = [0, 1].map(m => expected.probs[2 * at + m].filter((p, i) => p.indexOf(Math.max(...p)) === expected.labels[i]).length);
      await until(async () => (await sums()).match(/\d+ of/g)?.map(o => parseInt(o)).join() === want.join(), `right are ${want} at ${key}`, sums)
        .catch(e => bad.push(e.message));
    }
    return [...bad, ...page.wrong];
  },

  // axe's rules on a light screen and a dark phone; nothing sticks out; on paper the still picture
  async everybody({figures}) {
    const bad = [];
    for (const [where, name] of figures) {
      for (const mode of [DESK, PHONE]) {   // the phone is dark
        const drawn = mode === PHONE, page = await start(where, name, mode, null, drawn), which = mode === PHONE ? 'phone' : 'desk';
        if ((await box(page).innerText()).includes('These are drawn shapes') !== drawn) bad.push(`${name}: drawn shapes are ${drawn ? 'taken' : 'given'} for what they are not`);
        bad.push(...(await axe(page, '.sl-live')).map(o => `${name}, ${which}: ${o}`));
        const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
        if (wide > 0) bad.push(`${name}, ${which}: ${wide} pixels stick out`);
        if (mode === PHONE) {
          const before = await box(page).innerText();
          await box(page).locator(name === 'memory' ? 'input[type=range]' : '.sl-choice label').last().tap();
          await until(async () => await box(page).innerText() !== before, `${name}: a finger changes nothing`, () => box(page).innerText()).catch(e => bad.push(e.message));
        }
        await page.emulateMedia({media: 'print'});
        if (!await page.locator(`figure[data-live=${name}]`).isVisible() || await box(page).isVisible()) bad.push(`${name}, ${which}: not the still picture on paper`);
        await page.emulateMedia({media: 'screen'});
        await play(page, name).click();
        if (!await page.locator(`figure[data-live=${name}]`).isVisible() || await box(page).isVisible()) bad.push(`${name}: the still picture does not come back`);
        bad.push(...page.wrong);
        await page.context().close();
      }
    }
    return bad;
  },

  async without_script({figures}) {
    const bad = [];
    for (const [where, name] of figures) {
      const page = await open(held.job.url + where, {...DESK, javaScriptEnabled: false});
      if (!await page.locator(`figure[data-live=${name}] img`).isVisible() || await page.locator('.sl-play').count()) bad.push(`${name}: not just the still picture`);
      await page.context().close();
    }
    return bad;
  },

  async old_browser({where, name}) {
    const page = await start(where, name, DESK, () => { WebAssembly.validate = () => false; }), words = await box(page).innerText();
    return words.includes('too old') ? page.wrong : [`the figure says '${words}'`];
  },
};

run(CHECKS, ['skips']).catch(e => { console.error(e.message); process.exit(1); });
