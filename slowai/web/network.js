// A network that lives in the page: `const net = new Network('folder/')`, then `await net.ask({file})`. Nothing is fetched before it is asked

// The smallest module with an instruction of 128 bits: does this browser know it?
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);

export function missing() {
  const there = typeof WebAssembly === 'object' && WebAssembly.validate(SIMD) && typeof Worker === 'function' &&
    typeof OffscreenCanvas === 'function' && typeof DecompressionStream === 'function';
  return there ? null : 'This browser is too old to run a network: it lacks WebAssembly SIMD or something else of these last years.';
}

export class Network {
  constructor(folder, model = 'model.onnx') {
    Object.assign(this, {folder: new URL(folder, document.baseURI).href, model, waiting: new Map(), n: 0});
  }

  async about() {
    return this.manifest ??= await (async () => {
      const got = await fetch(new URL('manifest.json', this.folder));
      if (!got.ok) throw new Error(`manifest.json can't be fetched (${got.status})`);
      return got.json();
    })();
  }

  start() { return this.ready ??= this.begin().catch(e => { this.ready = null; throw e; }); }

  async begin() {
    const lack = missing(), manifest = lack ? null : await this.about();
    if (lack) throw new Error(lack);
    this.worker = new Worker(new URL('./worker.js', import.meta.url), {type: 'module'});
    this.worker.onmessage = ({data: {id, error, ...said}}) => {
      const {yes, no} = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) no(new Error(error)); else yes(said);
    };
    this.worker.onerror = e => {
      for (const {no} of this.waiting.values()) no(new Error(`the network could not be started (${e.message || 'see the console'})`));
      this.waiting.clear();
    };
    await this.send({what: 'start', model: new URL(this.model, this.folder).href, manifest});
  }

  send(message) {
    return new Promise((yes, no) => {
      this.waiting.set(++this.n, {yes, no});
      this.worker.postMessage({id: this.n, ...message});
    });
  }

  // {file} or {pixels: {width, height, channels, data}}, with {maps: true} for the layers' maps → {probs, seen, words, maps, ms}
  async ask(o) {
    await this.start();
    return this.send({what: 'ask', ...o});
  }
}

// The most likely classes: [[index, probability], …]
export const top = (probs, k = 5) => [...probs].map((p, i) => [i, p]).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, k);
