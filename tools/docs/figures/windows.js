// A window of nine numbers, slid over a picture: what it answers everywhere, and the sum of products at one place
import {choice, choose, data, select, slider, standIn, upload} from './parts.js';
import {openPicture} from './web/picture.js';
import {fitPicture} from './web/resize.js';
import {make, picture} from './web/show.js';

const PRESETS = {'top edge': [1, 1, 1, 0, 0, 0, -1, -1, -1], 'left edge': [1, 0, -1, 1, 0, -1, 1, 0, -1], outline: [-1, -1, -1, -1, 8, -1, -1, -1, -1],
  blur: [1, 1, 1, 1, 1, 1, 1, 1, 1].map(o => o / 9), sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0], 'nothing at all': [0, 0, 0, 0, 1, 0, 0, 0, 0]};
const OWN = 56;   // pixels a side of a reader's picture

// What a window answers at each place: pixels 0 … 255 of a picture, counted as 0 … 1
export function answers(pixels, width, height, k) {
  const w = width - 2, out = new Float32Array(w * (height - 2));
  for (let y = 0, o = 0; y < height - 2; y++) {
    for (let x = 0; x < w; x++, o++) {
      let sum = 0;
      for (let i = 0; i < 9; i++) sum += k[i] * pixels[(y + (i / 3 | 0)) * width + x + i % 3] / 255;
      out[o] = sum;
    }
  }
  return out;
}

// From red over white to blue, as the page draws it
const STOPS = [[103, 0, 31], [178, 24, 43], [214, 96, 77], [244, 165, 130], [253, 219, 199], [247, 247, 247], [209, 229, 240], [146, 197, 222], [67, 147, 195],
  [33, 102, 172], [5, 48, 97]];
export function redBlue(v) {
  const x = (Math.min(Math.max(v, -1), 1) + 1) * 5, i = Math.min(Math.floor(x), 9), f = x - i;
  return STOPS[i].map((a, c) => Math.round(a + (STOPS[i + 1][c] - a) * f));
}

function paint(canvas, width, height, colour, mark) {
  const zoom = Math.round(336 / width), cx = canvas.getContext('2d');
  Object.assign(canvas, {width: width * zoom, height: height * zoom});
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      cx.fillStyle = `rgb(${colour(y * width + x).join()})`;
      cx.fillRect(x * zoom, y * zoom, zoom, zoom);
    }
  }
  const [x, y, n] = mark;
  for (const [colour, by, wide] of [['#fff', 0, 5], ['#c2410c', 0, 3]]) {
    Object.assign(cx, {strokeStyle: colour, lineWidth: wide});
    cx.strokeRect(x * zoom + by, y * zoom + by, n * zoom, n * zoom);
  }
}

const short = v => `${Math.round(v * 100) / 100 + 0}`.replace('-', '−');

export async function figure(box, folder) {
  const {about, pictures} = await data(folder), [H, W] = about.size;
  const presets = {...PRESETS, 'learnt by a network': about.learnt}, now = {k: [...PRESETS['top edge']]};
  const cells = now.k.map((_, i) => make('input', {type: 'number', step: .1, ariaLabel: `Window, row ${(i / 3 | 0) + 1}, column ${i % 3 + 1}`}));
  const seen = picture('The picture, with the window on it'), found = picture('What the window answers, place by place'), sum = make('output', {className: 'sl-sum'});
  const trouble = make('p', {className: 'sl-trouble', hidden: true}), scale = make('p', {className: 'sl-quiet'});
  trouble.setAttribute('role', 'alert');

  const draw = () => {
    const {pixels, width, height, k} = now, found_ = answers(pixels, width, height, k), most = found_.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
    now.x = Math.min(now.x, width - 3);
    now.y = Math.min(now.y, height - 3);
    paint(seen, width, height, i => [pixels[i], pixels[i], pixels[i]], [now.x, now.y, 3]);
    paint(found, width - 2, height - 2, i => redBlue(found_[i] / most), [now.x, now.y, 1]);
    for (const [o, v, n] of [[column, now.x, width], [row, now.y, height]]) {
      Object.assign(o.range, {max: n - 3, value: v});
      o.say(`${v + 1} of ${n - 2}`);
    }
    const at = i => pixels[(now.y + (i / 3 | 0)) * width + now.x + i % 3] / 255;
    const lines = [0, 3, 6].map(r => [0, 1, 2].map(c => `${at(r + c).toFixed(2)} × ${k[r + c] < 0 ? `(${short(k[r + c])})` : short(k[r + c])}`).join(' + '));
    sum.textContent = `${lines.join('\n+ ')}\n= ${found_[now.y * (width - 2) + now.x].toFixed(2).replace('-', '−')}`;
    scale.textContent = `Blue: above zero; red: below; white: zero. The deepest colour stands for ${short(most)}.`;
  };
  const take = (pixels, width, height) => { Object.assign(now, {pixels, width, height}); draw(); };
  const write = k => { now.k = [...k]; cells.forEach((o, i) => { o.value = Math.round(k[i] * 100) / 100; }); draw(); };
  const own = async file => {
    trouble.hidden = true;
    try {
      const im = await openPicture(new Uint8Array(await file.arrayBuffer()), [OWN, OWN]);
      const {data: pixels} = fitPicture(im, {size: [OWN, OWN], channels: 1, fit: 'crop', newPIL: true});
      choose(some, -1);
      take(pixels, OWN, OWN);
    } catch (e) {
      trouble.textContent = `${file.name}: ${e.message}`;
      trouble.hidden = false;
    }
  };

  cells.forEach((o, i) => o.addEventListener('input', () => { now.k[i] = Number.isFinite(o.valueAsNumber) ? o.valueAsNumber : 0; preset.list.value = ''; draw(); }));
  const preset = select('Window', [...Object.keys(presets).map(o => [o, o]), ['', 'your own']], o => { if (o) write(presets[o]); });
  const row = slider('Row', 1, v => { now.y = v; draw(); }), column = slider('Column', 1, v => { now.x = v; draw(); });
  for (const [canvas, back] of [[seen, 1], [found, 0]]) {
    const move = e => {
      const r = canvas.getBoundingClientRect(), n = now.width - 2 + 2 * back, m = now.height - 2 + 2 * back;
      const to = (v, most) => Math.min(Math.max(Math.floor(v) - back, 0), most);
      now.x = to((e.clientX - r.left) / r.width * n, now.width - 3);
      now.y = to((e.clientY - r.top) / r.height * m, now.height - 3);
      draw();
    };
    canvas.style.touchAction = 'none';
    for (const o of ['pointermove', 'pointerdown']) canvas.addEventListener(o, move);
  }
  const some = choice('Picture', pictures, about.names, about, i => take(pictures[i], W, H));
  const grid = make('fieldset', {className: 'sl-window'}, make('legend', {textContent: 'Nine numbers, to be changed'}), ...cells);
  box.replaceChildren(...standIn(about), some, upload('or one of your own', own), trouble, make('div', {className: 'sl-row'}, preset, grid),
    make('div', {className: 'sl-row'}, seen, found), scale, make('div', {className: 'sl-row'}, row, column), sum);
  choose(some, 0);
  const first = answers(pictures[0], W, H, now.k), place = first.indexOf(first.reduce((a, b) => Math.max(a, b)));
  Object.assign(now, {pixels: pictures[0], width: W, height: H, x: place % (W - 2), y: Math.floor(place / (W - 2))});
  write(now.k);
}
