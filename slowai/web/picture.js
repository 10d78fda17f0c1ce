// From the bytes of a file to pixels: JPEG and PNG by our own decoders, which say what PIL says; what else the browser knows, by the browser
import {Bad} from './bad.js';
import {decodeJpeg} from './jpeg.js';
import {decodePng} from './png.js';
import {turn} from './resize.js';

export {Bad};
const MOST = 64e6; // pixels; a page should not ask for more than a few hundred megabytes

const ascii = (b, from, to) => String.fromCharCode(...b.subarray(from, to));
const le = (b, at, n) => { let v = 0; for (let i = n - 1; i >= 0; i--) v = v * 256 + b[at + i]; return v; };
const be = (b, at, n) => { let v = 0; for (let i = 0; i < n; i++) v = v * 256 + b[at + i]; return v; };

export function kindOf(b) {
  if (b[0] === 0xff && b[1] === 0xd8) return 'jpeg';
  if (be(b, 0, 4) === 0x89504e47) return 'png';
  if (ascii(b, 0, 4) === 'GIF8') return 'gif';
  if (ascii(b, 0, 4) === 'RIFF' && ascii(b, 8, 12) === 'WEBP') return 'webp';
  if (ascii(b, 0, 2) === 'BM') return 'bmp';
  return null;
}

// [width, height] as the file's header says, before anything is decoded; null where we can't tell
export function sizeOf(b, kind = kindOf(b)) {
  if (kind === 'png') return [be(b, 16, 4), be(b, 20, 4)];
  if (kind === 'gif') return [le(b, 6, 2), le(b, 8, 2)];
  if (kind === 'bmp') return [Math.abs(le(b, 18, 4) | 0), Math.abs(le(b, 22, 4) | 0)];
  if (kind === 'webp') {
    const name = ascii(b, 12, 16);
    if (name === 'VP8X') return [le(b, 24, 3) + 1, le(b, 27, 3) + 1];
    if (name === 'VP8L') return [(le(b, 21, 2) & 0x3fff) + 1, (le(b, 22, 3) >> 6 & 0x3fff) + 1];
    return [le(b, 26, 2) & 0x3fff, le(b, 28, 2) & 0x3fff];
  }
  const head = kind === 'jpeg' && segments(b).find(o => o.marker >= 0xc0 && o.marker <= 0xc2);
  return head ? [be(b, head.at + 3, 2), be(b, head.at + 1, 2)] : null;
}

// The segments of a JPEG up to its pixels
function segments(b) {
  const out = [];
  for (let at = 2; at + 4 <= b.length && b[at] === 0xff && b[at + 1] !== 0xda;) {
    if (b[at + 1] === 0xff) { at++; continue; }
    const n = be(b, at + 2, 2);
    out.push({marker: b[at + 1], at: at + 4, end: at + 2 + n});
    at += 2 + n;
  }
  return out;
}

// EXIF's note on how the camera was held: 1 upright … 8
export function orientation(b) {
  if (!b || b.length < 12) return 1;
  const view = new DataView(b.buffer, b.byteOffset, b.byteLength), little = ascii(b, 0, 2) === 'II';
  const first = view.getUint32(4, little);
  if (first + 2 > b.length) return 1;
  const n = view.getUint16(first, little);
  for (let i = 0, at = first + 2; i < n && at + 12 <= b.length; i++, at += 12) {
    if (view.getUint16(at, little) === 0x0112) return view.getUint16(at + 8, little);
  }
  return 1;
}

function heldAs(b) {
  const exif = segments(b).find(o => o.marker === 0xe1 && ascii(b, o.at, o.at + 6) === 'Exif\0\0');
  return exif ? orientation(b.subarray(exif.at + 6, exif.end)) : 1;
}

export function isAnimated(b, kind = kindOf(b)) {
  if (kind === 'webp') return ascii(b, 12, 16) === 'VP8X' && (b[20] & 2) > 0;
  if (kind !== 'gif') return false;
  let at = 13 + (b[10] & 128 ? 3 << (b[10] & 7) + 1 : 0), frames = 0;
  const skip = () => { while (at < b.length && b[at]) at += b[at] + 1; at++; };
  while (at < b.length && b[at] !== 0x3b) {
    if (b[at] === 0x21) { at += 2; skip(); }
    else if (b[at] === 0x2c) { frames++; at += 10 + (b[at + 9] & 128 ? 3 << (b[at + 9] & 7) + 1 : 0) + 1; skip(); }
    else break;
  }
  return frames > 1;
}

export async function openPicture(
  bytes, // Uint8Array, a file's
  size, // height and width that will be wanted: a large JPEG is decoded at a fraction, as PIL's `draft` does
) { // {width, height, full, channels, data, animated}, upright
  if (!bytes.length) throw new Bad('the file is empty');
  const kind = kindOf(bytes), dims = sizeOf(bytes, kind), most = 2 * Math.max(...size);
  if (dims && dims[0] * dims[1] > MOST) {
    throw new Bad(`has ${Math.round(dims[0] * dims[1] / 1e6)} million pixels; a page can take ${MOST / 1e6} million: make it smaller first`);
  }
  if (kind === 'jpeg') {
    const scaleOf = (w, h) => [8, 4, 2, 1].find(s => Math.min(Math.floor(w / most), Math.floor(h / most)) >= s) || 1;
    return turn(decodeJpeg(bytes, scaleOf), heldAs(bytes));
  }
  if (kind === 'png') {
    const im = await decodePng(bytes);
    return {...turn(im, orientation(im.exif)), animated: im.frames > 1};
  }
  return {...await byBrowser(bytes), animated: isAnimated(bytes, kind)};
}

async function byBrowser(bytes) {
  let bitmap;
  try { bitmap = await createImageBitmap(new Blob([bytes]), {colorSpaceConversion: 'none', premultiplyAlpha: 'none'}); }
  catch { throw new Bad("can't be decoded as a picture by this browser"); }
  const {width, height} = bitmap;
  try {
    if (width * height > MOST) throw new Bad(`has ${Math.round(width * height / 1e6)} million pixels; make it smaller first`);
    return fromBitmap(bitmap);
  } finally { bitmap.close(); }
}

// An ImageBitmap, or whatever a canvas draws
export function fromBitmap(o, width = o.width, height = o.height) {
  const cx = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  cx.drawImage(o, 0, 0);
  const {data} = cx.getImageData(0, 0, width, height);
  return {width, height, full: [height, width], channels: 4, data};
}
