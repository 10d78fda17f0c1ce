// A JPEG decoder that gives the very bytes of libjpeg-turbo, which PIL uses: the same integer IDCT, the same "fancy" upsampling, the
// same reduced sizes (1/2, 1/4, 1/8) that PIL's `draft` asks for. Browsers decode a JPEG each in its own way, and none at a reduced size.
// Gray and colour, baseline and progressive, 8 bits. Anything else throws.
import {Bad} from './bad.js';

const ZIGZAG = [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49,
  56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63];
const bad = why => new Bad(`can't be decoded as a JPEG: ${why}`);

// ---- the file's segments

export function decodeJpeg(
  bytes, // Uint8Array
  scaleOf = () => 1, // (width, height) → 1, 2, 4 or 8: how many pixels become one
) { // {width, height, full: [height, width] before, channels: 1 or 3, data}
  const jpeg = read(bytes);
  const scale = scaleOf(jpeg.width, jpeg.height), planes = jpeg.parts.map(o => plane(jpeg, o, 8 / scale));
  const width = Math.ceil(jpeg.width / scale), height = Math.ceil(jpeg.height / scale), full = [jpeg.height, jpeg.width];
  if (planes.length === 1) return {width, height, full, channels: 1, data: crop(planes[0], width, height)};
  const wide = planes.map(o => upsampled(o, jpeg, 8 / scale, width, height));
  return {width, height, full, channels: 3, data: colours(wide, width * height, isRGB(jpeg))};
}

function read(bytes) {
  const jpeg = {quant: [], dc: [], ac: [], restart: 0, parts: null}, word = i => bytes[i] << 8 | bytes[i + 1];
  let at = 2, done = false;
  while (!done) {
    while (at < bytes.length && bytes[at] !== 0xff) at++;
    while (at < bytes.length && bytes[at] === 0xff) at++;
    if (at >= bytes.length) throw bad('it is cut off');
    const marker = bytes[at++];
    if (marker === 0xd9) break;
    if (marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    const end = at + word(at);
    if (end > bytes.length || end < at + 2) throw bad('it is cut off');
    const seg = bytes.subarray(at + 2, end);
    at = end;
    if (marker === 0xdb) quantisers(seg, jpeg);
    else if (marker === 0xc4) huffmans(seg, jpeg);
    else if (marker === 0xdd) jpeg.restart = seg[0] << 8 | seg[1];
    else if (marker === 0xe0 && text(seg, 4) === 'JFIF') jpeg.jfif = true;
    else if (marker === 0xee && text(seg, 5) === 'Adobe') jpeg.adobe = seg[11];
    else if (marker >= 0xc0 && marker <= 0xc2) frame(seg, jpeg, marker === 0xc2);
    else if (marker >= 0xc3 && marker <= 0xcf && marker !== 0xc8) throw bad('a rare kind (lossless or arithmetic coding)');
    else if (marker === 0xda) {
      at = scan(bytes, at, seg, jpeg);
      jpeg.scans = (jpeg.scans || 0) + 1;
    }
  }
  if (!jpeg.parts || !jpeg.scans) throw bad('there is no picture in it');
  return jpeg;
}

const text = (b, n) => String.fromCharCode(...b.subarray(0, n));

function quantisers(b, jpeg) {
  for (let i = 0; i < b.length;) {
    const wide = b[i] >> 4, q = jpeg.quant[b[i++] & 15] = new Int32Array(64);
    for (let k = 0; k < 64; k++, i += wide ? 2 : 1) q[ZIGZAG[k]] = wide ? b[i] << 8 | b[i + 1] : b[i];
  }
}

// A Huffman table as one lookup of 16 bits: length << 8 | symbol; 0 where there is no such code
function huffmans(b, jpeg) {
  for (let i = 0; i < b.length;) {
    const kind = b[i] >> 4 ? jpeg.ac : jpeg.dc, which = b[i++] & 15, counts = b.subarray(i, i += 16), table = new Uint16Array(65536);
    let code = 0;
    for (let n = 1; n <= 16; n++, code <<= 1) {
      for (let k = 0; k < counts[n - 1]; k++, code++) table.fill(n << 8 | b[i++], code << (16 - n), (code + 1) << (16 - n));
    }
    kind[which] = table;
  }
}

function frame(b, jpeg, progressive) {
  if (b[0] !== 8) throw bad(`${b[0]} bits a channel`);
  if (jpeg.parts) throw bad('two pictures in one frame');
  Object.assign(jpeg, {progressive, height: b[1] << 8 | b[2], width: b[3] << 8 | b[4]});
  if (!jpeg.height || !jpeg.width) throw bad('it has no size');
  if (b[5] !== 1 && b[5] !== 3) throw new Bad(`has ${b[5]} colour channels (CMYK); save it as an ordinary colour picture first`);
  jpeg.parts = Array.from({length: b[5]}, (_, i) => ({id: b[6 + 3 * i], h: b[7 + 3 * i] >> 4, v: b[7 + 3 * i] & 15, q: b[8 + 3 * i]}));
  if (jpeg.parts.length === 1) jpeg.parts[0].h = jpeg.parts[0].v = 1;
  if (jpeg.parts.some(o => !o.h || !o.v || o.h > 4 || o.v > 4)) throw bad('its header is damaged');
  jpeg.h = Math.max(...jpeg.parts.map(o => o.h));
  jpeg.v = Math.max(...jpeg.parts.map(o => o.v));
  jpeg.across = Math.ceil(jpeg.width / 8 / jpeg.h);
  jpeg.down = Math.ceil(jpeg.height / 8 / jpeg.v);
  for (const o of jpeg.parts) {
    o.across = Math.ceil(jpeg.width * o.h / jpeg.h / 8);   // blocks that show; those of the last unit may reach beyond
    o.down = Math.ceil(jpeg.height * o.v / jpeg.v / 8);
    o.stride = jpeg.across * o.h;
    o.blocks = new Int16Array(64 * o.stride * jpeg.down * o.v);
  }
}

// ---- one scan: coefficients out of bits

function scan(bytes, start, head, jpeg) {
  if (!jpeg.parts) throw bad('it has no header');
  const n = head[0], parts = [], from = head[1 + 2 * n], to = head[2 + 2 * n], high = head[3 + 2 * n] >> 4, low = head[3 + 2 * n] & 15;
  for (let i = 0; i < n; i++) {
    const part = jpeg.parts.find(o => o.id === head[1 + 2 * i]);
    if (!part) throw bad('its header is damaged');
    parts.push(Object.assign(part, {dc: jpeg.dc[head[2 + 2 * i] >> 4], ac: jpeg.ac[head[2 + 2 * i] & 15], pred: 0}));
  }
  const seq = !jpeg.progressive, needDC = seq || (!from && !high), needAC = seq || from;
  if (parts.some(o => (needDC && !o.dc) || (needAC && !o.ac))) throw bad('a table is missing');
  let at = start, bits = 0, held = 0, run = 0, over = 0;

  const fill = () => {
    while (held <= 16) {
      let b = at < bytes.length ? bytes[at] : -1;
      if (b === 0xff) {
        if (bytes[at + 1] === 0) at += 2; else b = -1;   // a marker: nothing more comes before it
      } else if (b >= 0) at++;
      if (b < 0) { b = 0; over++; }
      bits = bits << 8 | b;
      held += 8;
    }
  };
  const bit = () => {
    if (!held) fill();
    return bits >>> --held & 1;
  };
  const take = k => {
    if (!k) return 0;
    if (held < k) fill();
    held -= k;
    return bits >>> held & (1 << k) - 1;
  };
  const signed = k => {
    const v = take(k);
    return v < 1 << (k - 1) && k ? v - (1 << k) + 1 : v;
  };
  const symbol = table => {
    if (held < 16) fill();
    const got = table[bits >>> (held - 16) & 0xffff];
    if (!got) throw bad('its data are damaged');
    held -= got >> 8;
    return got & 255;
  };

  function sequential(o, b, at) {
    b[at] = o.pred = o.pred + signed(symbol(o.dc));
    for (let k = 1; k < 64; k++) {
      const rs = symbol(o.ac), s = rs & 15;
      if (!s) { if (rs < 0xf0) return; k += 15; continue; }
      k += rs >> 4;
      b[at + ZIGZAG[k & 63]] = signed(s);
    }
  }
  function dcFirst(o, b, at) { b[at] = (o.pred = o.pred + signed(symbol(o.dc))) << low; }
  function dcMore(o, b, at) { if (bit()) b[at] |= 1 << low; }
  function acFirst(o, b, at) {
    if (run) { run--; return; }
    for (let k = from; k <= to; k++) {
      const rs = symbol(o.ac), r = rs >> 4, s = rs & 15;
      if (!s) {
        if (r < 15) { run = (1 << r) - 1 + take(r); return; }
        k += 15;
        continue;
      }
      k += r;
      b[at + ZIGZAG[k & 63]] = signed(s) << low;
    }
  }
  function acMore(o, b, at) {
    const plus = 1 << low;
    let k = from;
    const correct = i => { if (bit() && !(Math.abs(b[i]) & plus)) b[i] += b[i] > 0 ? plus : -plus; };
    if (!run) {
      for (; k <= to; k++) {
        const rs = symbol(o.ac);
        let r = rs >> 4, value = 0;
        if (rs & 15) value = bit() ? plus : -plus;
        else if (r < 15) { run = (1 << r) + take(r); break; }
        for (; k <= to; k++) {
          const i = at + ZIGZAG[k];
          if (b[i]) correct(i);
          else if (r-- === 0) { if (value) b[i] = value; break; }
        }
      }
    }
    if (!run) return;
    for (; k <= to; k++) { const i = at + ZIGZAG[k]; if (b[i]) correct(i); }
    run--;
  }

  const decode = seq ? sequential : from ? (high ? acMore : acFirst) : high ? dcMore : dcFirst;
  const lone = n === 1, units = lone ? parts[0].across * parts[0].down : jpeg.across * jpeg.down;
  for (let u = 0; u < units; u++) {
    if (jpeg.restart && u && u % jpeg.restart === 0) {
      held = bits = run = 0;
      while (at < bytes.length - 1 && !(bytes[at] === 0xff && bytes[at + 1] >= 0xd0 && bytes[at + 1] <= 0xd7)) at++;
      at += 2;
      over = 0;
      if (at >= bytes.length) throw bad('it is cut off');
      for (const o of parts) o.pred = 0;
    }
    if (over > 64) throw bad('it is cut off');
    if (lone) {
      const o = parts[0];
      decode(o, o.blocks, 64 * ((u / o.across | 0) * o.stride + u % o.across));
      continue;
    }
    const x = u % jpeg.across, y = u / jpeg.across | 0;
    for (const o of parts) {
      for (let v = 0; v < o.v; v++) for (let h = 0; h < o.h; h++) decode(o, o.blocks, 64 * ((y * o.v + v) * o.stride + x * o.h + h));
    }
  }
  return at;
}

// ---- pixels out of coefficients

function plane(jpeg, o, size) {
  let n = size;   // chroma is brought up by its IDCT as far as that goes
  while (n < 8 && (jpeg.h * size) % (o.h * n * 2) === 0 && (jpeg.v * size) % (o.v * n * 2) === 0) n *= 2;
  const q = jpeg.quant[o.q], stride = o.stride * n, down = jpeg.down * o.v, data = new Uint8ClampedArray(stride * down * n);
  if (!q) throw bad('a table is missing');
  const idct = {1: idct1, 2: idct2, 4: idct4, 8: idct8}[n], ws = new Int32Array(64), c = new Int32Array(64);
  for (let y = 0, b = 0; y < down; y++) {
    for (let x = 0; x < o.stride; x++, b += 64) {
      for (let k = 0; k < 64; k++) c[k] = o.blocks[b + k] * q[k];
      idct(c, ws, data, y * n * stride + x * n, stride);
    }
  }
  o.blocks = null;
  const width = Math.ceil(jpeg.width * o.h * n / (jpeg.h * 8)), height = Math.ceil(jpeg.height * o.v * n / (jpeg.v * 8));
  return {data, stride, width, height, n, h: o.h, v: o.v};
}

const put = (v, shift) => ((v + (1 << (shift - 1))) >> shift) + 128;
const mid = (v, shift) => (v + (1 << (shift - 1))) >> shift;

function idct1(c, ws, out, at) { out[at] = put(c[0], 3); }

function idct2(c, ws, out, at, stride) {
  for (let i = 0; i < 8; i++) {
    if (i === 2 || i === 4 || i === 6) continue;
    const even = c[i] << 15, odd = c[56 + i] * -5906 + c[40 + i] * 6967 + c[24 + i] * -10426 + c[8 + i] * 29692;
    ws[i] = mid(even + odd, 13);
    ws[8 + i] = mid(even - odd, 13);
  }
  for (let y = 0; y < 2; y++, at += stride) {
    const w = 8 * y, even = ws[w] << 15, odd = ws[w + 7] * -5906 + ws[w + 5] * 6967 + ws[w + 3] * -10426 + ws[w + 1] * 29692;
    out[at] = put(even + odd, 20);
    out[at + 1] = put(even - odd, 20);
  }
}

function idct4(c, ws, out, at, stride) {
  for (let i = 0; i < 8; i++) {
    if (i === 4) continue;
    const t = c[i] << 14, e = c[16 + i] * 15137 + c[48 + i] * -6270, a = t + e, b = t - e;
    const z1 = c[56 + i], z2 = c[40 + i], z3 = c[24 + i], z4 = c[8 + i];
    const p = z1 * -1730 + z2 * 11893 + z3 * -17799 + z4 * 8697, r = z1 * -4176 + z2 * -4926 + z3 * 7373 + z4 * 20995;
    ws[i] = mid(a + r, 12);
    ws[24 + i] = mid(a - r, 12);
    ws[8 + i] = mid(b + p, 12);
    ws[16 + i] = mid(b - p, 12);
  }
  for (let y = 0; y < 4; y++, at += stride) {
    const w = 8 * y, t = ws[w] << 14, e = ws[w + 2] * 15137 + ws[w + 6] * -6270, a = t + e, b = t - e;
    const z1 = ws[w + 7], z2 = ws[w + 5], z3 = ws[w + 3], z4 = ws[w + 1];
    const p = z1 * -1730 + z2 * 11893 + z3 * -17799 + z4 * 8697, r = z1 * -4176 + z2 * -4926 + z3 * 7373 + z4 * 20995;
    out[at] = put(a + r, 19);
    out[at + 3] = put(a - r, 19);
    out[at + 1] = put(b + p, 19);
    out[at + 2] = put(b - p, 19);
  }
}

// One row or column of eight, by Loeffler, Ligtenberg and Moschytz with 13 bits; `shift` and `say` differ between the two passes
function eight(s, i, step, d, j, hop, shift, say) {
  const z2 = s[i + 2 * step], z3 = s[i + 6 * step], e1 = (z2 + z3) * 4433, t2 = e1 + z3 * -15137, t3 = e1 + z2 * 6270;
  const t0 = (s[i] + s[i + 4 * step]) << 13, t1 = (s[i] - s[i + 4 * step]) << 13;
  const a = t0 + t3, f = t0 - t3, b = t1 + t2, g = t1 - t2;
  const o0 = s[i + 7 * step], o1 = s[i + 5 * step], o2 = s[i + 3 * step], o3 = s[i + step];
  const z5 = (o0 + o2 + o1 + o3) * 9633, y1 = (o0 + o3) * -7373, y2 = (o1 + o2) * -20995;
  const y3 = (o0 + o2) * -16069 + z5, y4 = (o1 + o3) * -3196 + z5;
  const p0 = o0 * 2446 + y1 + y3, p1 = o1 * 16819 + y2 + y4, p2 = o2 * 25172 + y2 + y3, p3 = o3 * 12299 + y1 + y4;
  d[j] = say(a + p3, shift);
  d[j + 7 * hop] = say(a - p3, shift);
  d[j + hop] = say(b + p2, shift);
  d[j + 6 * hop] = say(b - p2, shift);
  d[j + 2 * hop] = say(g + p1, shift);
  d[j + 5 * hop] = say(g - p1, shift);
  d[j + 3 * hop] = say(f + p0, shift);
  d[j + 4 * hop] = say(f - p0, shift);
}

function idct8(c, ws, out, at, stride) {
  for (let i = 0; i < 8; i++) eight(c, i, 8, ws, i, 8, 11, mid);
  for (let y = 0; y < 8; y++) eight(ws, 8 * y, 1, out, at + y * stride, 1, 18, put);
}

function crop({data, stride}, width, height) {
  if (stride === width) return data.subarray(0, width * height);
  const out = new Uint8ClampedArray(width * height);
  for (let y = 0; y < height; y++) out.set(data.subarray(y * stride, y * stride + width), y * width);
  return out;
}

// ---- a plane of colour at half the width or height comes up to the whole, three parts the nearer pixel and one the further

function upsampled(p, jpeg, size, width, height) {
  const h = jpeg.h * size / (p.h * p.n), v = jpeg.v * size / (p.v * p.n), fancy = size > 1;
  if (h === 1 && v === 1) return crop(p, width, height);
  if (fancy && h === 2 && v <= 2 && p.width > 2) return v === 1 ? wider(p, width, height) : larger(p, width, height);
  if (fancy && h === 1 && v === 2) return taller(p, width, height);
  const out = new Uint8ClampedArray(width * height);
  if (h % 1 || v % 1) throw bad('a rare kind (fractional sampling)');
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) out[i] = p.data[(y / v | 0) * p.stride + (x / h | 0)];
  return out;
}

function wider({data, stride, width: w}, width, height) {
  const out = new Uint8ClampedArray(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0, i = y * stride, o = y * width; x < w; x++, i++) {
      const a = x ? data[i] * 3 + data[i - 1] + 1 >> 2 : data[i], b = x < w - 1 ? data[i] * 3 + data[i + 1] + 2 >> 2 : data[i];
      out[o + 2 * x] = a;
      if (2 * x + 1 < width) out[o + 2 * x + 1] = b;
    }
  }
  return out;
}

// The row of which a row is three parts, and the one of which it is one
const rows = (y, h) => [y >> 1, Math.min(h - 1, Math.max(0, (y >> 1) + (y & 1 ? 1 : -1)))];

function taller({data, stride, height: h}, width, height) {
  const out = new Uint8ClampedArray(width * height);
  for (let y = 0, o = 0; y < height; y++) {
    const [near, far] = rows(y, h);
    for (let x = 0; x < width; x++, o++) out[o] = data[near * stride + x] * 3 + data[far * stride + x] + 1 + (y & 1) >> 2;
  }
  return out;
}

function larger({data, stride, width: w, height: h}, width, height) {
  const out = new Uint8ClampedArray(width * height), sum = new Int32Array(w);
  for (let y = 0; y < height; y++) {
    const [near, far] = rows(y, h), o = y * width;
    for (let x = 0; x < w; x++) sum[x] = data[near * stride + x] * 3 + data[far * stride + x];
    for (let x = 0; x < w; x++) {
      out[o + 2 * x] = x ? sum[x] * 3 + sum[x - 1] + 8 >> 4 : sum[x] * 4 + 8 >> 4;
      if (2 * x + 1 < width) out[o + 2 * x + 1] = x < w - 1 ? sum[x] * 3 + sum[x + 1] + 7 >> 4 : sum[x] * 4 + 7 >> 4;
    }
  }
  return out;
}

// ---- colour

function isRGB({jfif, adobe, parts}) {
  if (jfif) return false;
  if (adobe !== undefined) return adobe === 0;
  return String.fromCharCode(...parts.map(o => o.id)) === 'RGB';
}

function colours([Y, B, R], n, plain) {
  const out = new Uint8ClampedArray(3 * n);
  for (let i = 0, o = 0; i < n; i++, o += 3) {
    const y = Y[i], b = B[i] - 128, r = R[i] - 128;
    out[o] = plain ? y : y + (91881 * r + 32768 >> 16);
    out[o + 1] = plain ? B[i] : y + (-22554 * b - 46802 * r + 32768 >> 16);
    out[o + 2] = plain ? R[i] : y + (116130 * b + 32768 >> 16);
  }
  return out;
}
