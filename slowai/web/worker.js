// Runs beside the page, so that the page never stands still: pictures are decoded and the network is asked here, one after the other
import * as ort from './ort.wasm.min.mjs';
import {Bad, openPicture} from './picture.js';
import {fitPicture} from './resize.js';

ort.env.wasm.numThreads = 1;   // more would need special headers from the host
ort.env.wasm.wasmPaths = new URL('./', import.meta.url).href;

let session, about, last = Promise.resolve();

async function start({model, manifest}) {
  about = manifest;
  const got = await fetch(model);
  if (!got.ok) throw new Bad(`the network can't be fetched (${got.status})`);
  session = await ort.InferenceSession.create(new Uint8Array(await got.arrayBuffer()), {executionProviders: ['wasm']});
  return {};
}

// A picture (a file, or pixels) to what the network sees and says
async function ask({file, pixels, maps, inputs}) {
  const begun = performance.now();
  const im = file ? await openPicture(new Uint8Array(await file.arrayBuffer()), about.size) : {full: [pixels.height, pixels.width], ...pixels};
  const {data, words} = fitPicture(im, about), [h, w] = about.size;
  const feeds = {pictures: new ort.Tensor('uint8', data, [1, about.channels, h, w])};
  for (const [k, v] of Object.entries(inputs || {})) feeds[k] = new ort.Tensor('float32', Float32Array.from(v), [v.length]);
  const wanted = ['probabilities', ...(maps ? about.layers.map(o => o.output) : [])];
  const found = await session.run(feeds, wanted), take = k => { const copy = found[k].data.slice(); found[k].dispose(); return copy; };
  const said = {probs: take('probabilities'), seen: data.slice(), animated: !!im.animated};
  said.maps = maps ? about.layers.map(o => take(o.output)) : null;
  return {...said, words, ms: performance.now() - begun};
}

async function answer({id, what, ...rest}) {
  try {
    const said = await {start, ask}[what](rest);
    self.postMessage({id, ...said}, [said.probs, said.seen, ...(said.maps || [])].filter(Boolean).map(o => o.buffer));
  } catch (e) {
    const sentence = e instanceof Bad ? e.message : /alloc|memory/i.test(e.message) ? 'takes more memory than this browser gives a page' :
      `something went wrong (${String(e.message || e).slice(0, 200)})`;
    self.postMessage({id, error: sentence});
  }
}

self.onmessage = ({data}) => { last = last.then(() => answer(data)); };
