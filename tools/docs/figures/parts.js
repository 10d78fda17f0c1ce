// What the figures share: their data, a choice among pictures, switches
import {drawSeen} from './web/maps.js';
import {make, picture} from './web/show.js';

async function got(url) {
  const o = await fetch(url);
  if (!o.ok) throw new Error(`${new URL(url).pathname.split('/').pop()} can't be fetched (${o.status})`);
  return o;
}

// What the build wrote: {about, pictures: [Uint8Array, one plane after the other]}
export async function data(folder) {
  const about = await (await got(new URL('manifest.json', folder))).json(), all = new Uint8Array(await (await got(new URL('pictures.bin', folder))).arrayBuffer());
  const [h, w] = about.size, n = h * w * about.channels;
  return {about, pictures: Array.from({length: all.length / n}, (_, i) => all.subarray(i * n, (i + 1) * n))};
}

// Planes as the pixels that a network's `ask` takes
export function pixelsOf(planes, {size: [height, width], channels}) {
  const n = height * width, data = new Uint8Array(planes.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < n; i++) data[i * channels + c] = planes[c * n + i];
  return {width, height, channels, data};
}

// A sentence, where drawn shapes stand in for the pictures that the text speaks of
export const standIn = about => about.drawn ? [make('p', {className: 'sl-quiet',
  textContent: 'These are drawn shapes: where this site was built, the pictures that the page speaks of could not be had.'})] : [];

let groups = 0;
// One of many small pictures: a group of radio buttons, one stop for the Tab key
export function choice(legend, pictures, names, about, picked) {
  const group = `sl-choice-${++groups}`, set = make('fieldset', {className: 'sl-choice'}, make('legend', {textContent: legend}));
  pictures.forEach((o, i) => {
    const input = make('input', {type: 'radio', name: group, value: i}), canvas = picture(names[i]);
    drawSeen(canvas, o, about);
    input.addEventListener('change', () => picked(i));
    set.append(make('label', {title: names[i]}, input, canvas));
  });
  return set;
}

export const choose = (set, i) => set.querySelectorAll('input').forEach((o, k) => { o.checked = k === i; });

// A labelled list: [[value, text], …]
export function select(label, options, changed) {
  const list = make('select', {}, ...options.map(([value, textContent]) => make('option', {value, textContent})));
  list.addEventListener('change', () => changed(list.value));
  return Object.assign(make('label', {}, make('span', {textContent: label}), list), {list});
}

export function slider(label, max, changed) {
  const range = make('input', {type: 'range', min: 0, max, value: 0, ariaLabel: label}), said = make('span');
  const say = text => { said.textContent = text; range.setAttribute('aria-valuetext', text); };
  range.addEventListener('input', () => changed(+range.value));
  return Object.assign(make('label', {}, make('span', {textContent: label}), range, said), {range, say});
}

// A file of the reader's
export function upload(label, picked) {
  const input = make('input', {type: 'file', accept: 'image/*'});
  input.addEventListener('change', () => { if (input.files.length) picked(input.files[0]); input.value = ''; });
  return make('label', {}, make('span', {textContent: label}), input);
}

// Runs `work` again and again as it is asked to, never twice at once; of requests that pile up, only the last counts
export function latest(work) {
  let next = null, running = null;
  return (...args) => {
    next = args;
    return running ??= (async () => {
      try { while (next) { const o = next; next = null; await work(...o); } } finally { running = null; }
    })();
  };
}
