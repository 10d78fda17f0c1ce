// A PNG decoder. Browsers have one, but hand its pixels out multiplied by their transparency, and in colours of their own: PIL does neither.
import {Bad} from './bad.js';

const bad = why => new Bad(`can't be decoded as a PNG: ${why}`);
const CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4};
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

export async function decodePng(
  bytes, // Uint8Array
) { // {width, height, full, channels: 1 gray, 2 gray and alpha, 3 RGB or 4 RGBA, data, exif, frames}
  const png = {...chunks(bytes)}, {depth, kind, head} = png;
  if (!head || !CHANNELS[kind]) throw bad('it has no header');
  const raw = await inflate(png.parts, length(png));
  const out = {width: png.width, height: png.height, full: [png.height, png.width], exif: png.exif, frames: png.frames};
  return {...out, ...meaning(pixels(raw, png), png)};
}

function chunks(b) {
  const view = new DataView(b.buffer, b.byteOffset, b.byteLength), png = {parts: []};
  for (let at = 8; at + 12 <= b.length;) {
    const n = view.getUint32(at), name = String.fromCharCode(...b.subarray(at + 4, at + 8)), data = b.subarray(at + 8, at + 8 + n);
    if (at + 12 + n > b.length) break;
    if (name === 'IHDR') {
      Object.assign(png, {head: true, width: view.getUint32(at + 8), height: view.getUint32(at + 12), depth: data[8], kind: data[9], woven: data[12]});
    } else if (name === 'IDAT') png.parts.push(data);
    else if (name === 'PLTE') png.palette = data;
    else if (name === 'tRNS') png.clear = data;
    else if (name === 'eXIf') png.exif = data;
    else if (name === 'acTL') png.frames = view.getUint32(at + 8);
    else if (name === 'IEND') { png.ended = true; break; }
    at += 12 + n;
  }
  return png;
}

const sizes = png => png.woven ? PASSES.map(([x, y, dx, dy]) => [Math.ceil((png.width - x) / dx), Math.ceil((png.height - y) / dy)]) :
  [[png.width, png.height]];
const rowBytes = (png, w) => Math.ceil(w * CHANNELS[png.kind] * png.depth / 8);
const length = png => sizes(png).reduce((a, [w, h]) => a + (w > 0 && h > 0 ? h * (1 + rowBytes(png, w)) : 0), 0);

async function inflate(parts, n) {
  const out = new Uint8Array(n), reader = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  let at = 0;
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      out.set(value.subarray(0, n - at), at);
      at += Math.min(value.length, n - at);
    }
  } catch { if (at < n) throw bad('its data are damaged'); }
  if (at < n) throw bad('it is cut off');
  return out;
}

// Each row was written as differences from its neighbours, in one of five ways
function unfilter(raw, at, rows, n, step) {
  for (let y = 0; y < rows; y++, at += n + 1) {
    const how = raw[at], row = at + 1, above = y ? row - n - 1 : -1;
    if (how > 4) throw bad('its data are damaged');
    if (how === 0) continue;
    for (let i = 0; i < n; i++) {
      const left = i >= step ? raw[row + i - step] : 0, up = above < 0 ? 0 : raw[above + i];
      let guess = how === 1 ? left : how === 2 ? up : left + up >> 1;
      if (how === 4) {
        const corner = i >= step && above >= 0 ? raw[above + i - step] : 0, p = left + up - corner;
        const a = Math.abs(p - left), b = Math.abs(p - up), c = Math.abs(p - corner);
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      raw[row + i] += guess;
    }
  }
}

// Of a sample of 16 bits, as Python has it: gray to the nearest of 256, of colours the upper eight
const deep = (raw, at, kind) => kind === 0 ? (raw[at] * 256 + raw[at + 1] + 128) / 257 | 0 : raw[at];

// Samples of one byte each; of fewer than eight bits as they are
function pixels(raw, png) {
  const {width, height, depth, woven} = png, ch = CHANNELS[png.kind], out = new Uint8Array(width * height * ch);
  let at = 0;
  const passes = woven ? PASSES : [[0, 0, 1, 1]];
  sizes(png).forEach(([w, h], p) => {
    if (w <= 0 || h <= 0) return;
    const n = rowBytes(png, w), [x0, y0, dx, dy] = passes[p];
    unfilter(raw, at, h, n, Math.max(1, ch * depth >> 3));
    for (let y = 0; y < h; y++, at += n + 1) {
      const row = at + 1, to = (y0 + y * dy) * width;
      if (depth === 8 && !woven) { out.set(raw.subarray(row, row + n), to * ch); continue; }
      for (let i = 0; i < w * ch; i++) {
        const bit = i * depth, v = depth === 16 ? deep(raw, row + 2 * i, png.kind) : depth === 8 ? raw[row + i] :
          raw[row + (bit >> 3)] >> (8 - depth - (bit & 7)) & (1 << depth) - 1;
        const x = x0 + (i / ch | 0) * dx;
        out[(to + x) * ch + i % ch] = v;
      }
    }
  });
  return out;
}

// What the samples mean: gray, a place in the palette, colours; and which of them is transparent
function meaning(a, {kind, depth, palette, clear, width, height}) {
  const n = width * height;
  if (kind === 3) {
    if (!palette) throw bad('a table is missing');
    const ch = clear ? 4 : 3, out = new Uint8Array(n * ch);
    for (let i = 0, o = 0; i < n; i++, o += ch) {
      for (let c = 0; c < 3; c++) out[o + c] = palette[3 * a[i] + c];
      if (clear) out[o + 3] = a[i] < clear.length ? clear[a[i]] : 255;
    }
    return {channels: ch, data: out};
  }
  if (kind === 0 && depth < 8) for (let i = 0, up = 255 / ((1 << depth) - 1); i < n; i++) a[i] *= up;
  if (!clear || kind > 3) return {channels: CHANNELS[kind], data: a};
  const ch = CHANNELS[kind], out = new Uint8Array(n * (ch + 1)), is = Array.from({length: ch}, (_, c) => clear[2 * c] << 8 | clear[2 * c + 1]);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < ch; c++) out[i * (ch + 1) + c] = a[i * ch + c];
    out[i * (ch + 1) + ch] = is.every((v, c) => v === a[i * ch + c]) ? 0 : 255;
  }
  return {channels: ch + 1, data: out};
}
