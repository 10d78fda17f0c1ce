// PIL's steps between a picture and the size that a network wants, number for number: on white, cut to the centre or squashed, the
// bilinear filter that averages over all pixels where it shrinks (a browser's own canvas only looks at the nearest few), gray.

const BITS = 22;

// For each new pixel: where its old ones begin, and their weights as whole numbers (`precompute_coeffs` of PIL's Resample.c)
export function weights(size, from, to, wanted) {
  const scale = Math.fround(to - from) / wanted, wide = Math.max(scale, 1), out = [];
  for (let i = 0; i < wanted; i++) {
    const center = from + (i + .5) * scale, first = Math.max(0, Math.trunc(center - wide + .5));
    const last = Math.min(size, Math.trunc(center + wide + .5)), k = new Float64Array(last - first);
    let sum = 0;
    for (let j = 0; j < k.length; j++) sum += k[j] = Math.max(0, 1 - Math.abs((j + first - center + .5) * (1 / wide)));
    out.push({first, k: Int32Array.from(k, v => Math.trunc((sum ? v / sum : v) * (1 << BITS) + .5))});
  }
  return out;
}

// One pass: each row (across) or each column (down) of the part that is needed
function pass(im, list, down, from, n) {
  const ch = im.channels, width = down ? im.width : list.length, height = down ? list.length : n;
  const data = new Uint8ClampedArray(width * height * ch), step = down ? im.width * ch : ch;
  for (let y = 0, o = 0; y < height; y++) {
    const line = down ? list[y].first * step : (y + from) * im.width * ch;
    for (let x = 0; x < width; x++) {
      const {first, k} = down ? list[y] : list[x];
      for (let c = 0; c < ch; c++) {
        let sum = 1 << (BITS - 1);
        for (let j = 0, i = line + (down ? x : first) * ch + c; j < k.length; j++, i += step) sum += im.data[i] * k[j];
        data[o++] = sum >> BITS;
      }
    }
  }
  return {...im, width, height, data};
}

// `box`: left, top, right, bottom of the part that is wanted, in pixels, whole or not. From version 13 on, PIL takes the columns before the
// rows where the height shrinks by more than twice what the width does; rounding in between makes that a difference of one step of gray
export function resize(im, width, height, box = [0, 0, im.width, im.height], newPIL = true) {
  const [x0, y0, x1, y1] = box.map(Math.fround), across = weights(im.width, x0, x1, width), down = weights(im.height, y0, y1, height);
  const wide = im.width !== width || x0 || x1 !== width, tall = im.height !== height || y0 || y1 !== height;
  if (newPIL && im.height > height && im.height - height > 2 * (im.width - width)) {
    if (tall) im = pass(im, down, true);
    return wide ? pass(im, across, false, 0, height) : im;
  }
  const top = down[0].first, last = down.at(-1), n = last.first + last.k.length - top;
  if (wide) im = pass(im, across, false, top, n);
  return tall ? pass(im, wide ? down.map(o => ({...o, first: o.first - top})) : down, true) : im;
}

// The middle of a picture in the proportions of a size (`ImageOps.fit`)
export function centre(im, width, height) {
  const is = im.width / im.height, want = width / height;
  const w = is === want || is < want ? im.width : want * im.height, h = is === want || is >= want ? im.height : im.width / want;
  const left = (im.width - w) * .5, top = (im.height - h) * .5;
  return [left, top, left + w, top + h];
}

// Transparent parts on white (`Image.alpha_composite`)
export function onWhite(im) {
  if (im.channels === 1 || im.channels === 3) return im;
  const ch = im.channels - 1, n = im.width * im.height, data = new Uint8ClampedArray(n * ch);
  for (let i = 0; i < n; i++) {
    const a = im.data[i * (ch + 1) + ch];
    for (let c = 0; c < ch; c++) {
      const t = a ? (im.data[i * (ch + 1) + c] * a + 255 * (255 - a) + 128) * 128 : 0;
      data[i * ch + c] = a ? ((t >> 8) + t >> 8) >> 7 : 255;
    }
  }
  return {...im, channels: ch, data};
}

// As ITU-R 601 weighs the colours, in PIL's whole numbers
export function toGray(im) {
  if (im.channels === 1) return im;
  const n = im.width * im.height, data = new Uint8ClampedArray(n), d = im.data;
  for (let i = 0; i < n; i++) data[i] = d[3 * i] * 19595 + d[3 * i + 1] * 38470 + d[3 * i + 2] * 7471 + 32768 >> 16;
  return {...im, channels: 1, data};
}

export function toColour(im) {
  if (im.channels === 3) return im;
  const data = new Uint8ClampedArray(3 * im.data.length);
  im.data.forEach((v, i) => data.fill(v, 3 * i, 3 * i + 3));
  return {...im, channels: 3, data};
}

// Turned as the camera says; `how` is EXIF's number, 1 to 8
export function turn(im, how) {
  if (!(how >= 2 && how <= 8)) return im;
  const {width: w, height: h, channels: ch, data} = im, across = how > 4;
  const W = across ? h : w, H = across ? w : h, out = new data.constructor(data.length);
  for (let y = 0, o = 0; y < H; y++) {
    for (let x = 0; x < W; x++) {
      const a = across ? y : x, b = across ? x : y, flipX = [2, 3, 7, 8].includes(how), flipY = [3, 4, 6, 7].includes(how);
      const i = ((flipY ? h - 1 - b : b) * w + (flipX ? w - 1 - a : a)) * ch;
      for (let c = 0; c < ch; c++) out[o++] = data[i + c];
    }
  }
  return {...im, width: W, height: H, data: out, full: across ? [im.full[1], im.full[0]] : im.full};
}

// A picture as a network sees it: {data: one plane after the other, words: what was done}
export function fitPicture(im, {size: [H, W], channels, fit, newPIL}) {
  const [h, w] = im.full, was = im.channels > 2 ? 3 : 1, words = [];
  im = onWhite(im);
  if (im.width !== W || im.height !== H) im = resize(im, W, H, fit === 'crop' ? centre(im, W, H) : undefined, newPIL);
  if (h !== H || w !== W) words.push(`${h}×${w} → ${H}×${W}${h * W === w * H ? '' : fit === 'crop' ? ', centre cut out' : ', squashed'}`);
  if (was !== channels) words.push(channels === 1 ? 'colour → gray' : 'gray → colour');
  im = channels === 1 ? toGray(im) : toColour(im);
  const n = W * H, data = new Uint8Array(n * channels);
  for (let c = 0; c < channels; c++) for (let i = 0; i < n; i++) data[c * n + i] = im.data[i * channels + c];
  return {data, words: words.join(', ')};
}
