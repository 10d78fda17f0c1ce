"""From a picture to its name in the browser: what the page of `slowai_demo` takes, in headless Chromium on one thread, the maps included.

The networks have drawn weights: what they say takes the same time. `python bench/browser.py` prints it and writes
results/bench_browser.json."""
import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import numpy as np
from PIL import Image

from slowai.batches import Normalize
from slowai.browser import engine_version, make_demo
from slowai.files import write_atomically
from slowai.inference import Classifier
from slowai.networks import build_model
from slowai.speed import spread

OUT = Path(__file__).resolve().parent.parent/'results/bench_browser.json'
NETWORKS = {   # what `build_model` takes: the network's name, classes and channels; and its pictures' side
    'residual network of FashionMNIST': ('residual', 10, 1, 28),
    'pre-activation network of Tiny ImageNet, a quarter as wide': ('tiny_pre_quarter', 200, 3, 64)}
FILES = {'28×28, PNG': ((28, 28), 'one.png'), '64×64, JPEG': ((64, 64), 'two.jpg'), '640×480, JPEG': ((640, 480), 'three.jpg')}
TIMES = """<!doctype html><script type="module">
import {Network} from './web/network.js';
const [files, rounds] = await (await fetch('asked.json')).json(), net = new Network('./'), out = files.map(() => []);
const blobs = await Promise.all(files.map(async o => (await fetch(o)).blob()));
for (let i = -5; i < rounds; i++) {   // five rounds that do not count
  for (const [k, file] of blobs.entries()) {
    const begun = performance.now();
    await net.ask({file, maps: true});
    if (i >= 0) out[k].push(performance.now() - begun);
  }
}
await fetch('done', {method: 'POST', body: JSON.stringify(out)});
</script>"""


class Serve(SimpleHTTPRequestHandler):
    "A folder, and a place to leave what was measured"
    def __init__(self, *args, done, **kwargs): self.done = done; super().__init__(*args, **kwargs)
    def log_message(self, *args): pass
    def do_POST(self):
        self.done.put(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
        self.send_response(204)
        self.end_headers()


def picture(size):
    "A picture with slopes and noise, as a camera would see some"
    (w, h), rng = size, np.random.default_rng(0)
    y, x = np.mgrid[:h, :w]
    waves = np.stack([np.sin(x/a + y/b) for a, b in rng.uniform(4, 80, (3, 2))], 2)
    return Image.fromarray((127 + 100*waves + rng.normal(0, 8, (h, w, 3))).clip(0, 255).astype('uint8'))


def milliseconds(
    chromium, # the command
    folder, # a page of `slowai_demo`
    rounds, # measurements of each file
):
    "What the page takes for each file, measured in the browser: a list for each"
    (folder/'asked.json').write_text(json.dumps([[f'pictures/{i}{Path(o).suffix}' for i, (_, o) in enumerate(FILES.values())], rounds]))
    (folder/'times.html').write_text(TIMES)
    done = Queue()
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Serve, done=done, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync'.split()
        cmd = [chromium, *flags, '--remote-debugging-port=0', f'--user-data-dir={home}', f'http://127.0.0.1:{server.server_port}/times.html']
        browser = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try: return done.get(timeout=600)
        finally:
            browser.terminate()
            browser.wait(20)
            server.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=60, help='measurements of each picture')
    rounds = parser.parse_args().rounds
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    chromium = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    if not chromium: return print('no Chromium here (Debian: apt install chromium): nothing measured')
    version = subprocess.run([chromium, '--version'], capture_output=True, text=True).stdout
    result = dict(browser=' '.join(re.findall(r'Chrom\w+|\d+(?=\.)', version)[:2]), engine=f'onnxruntime-web {engine_version}',
        cores=os.cpu_count(), rounds=rounds, networks=[])
    with tempfile.TemporaryDirectory() as tmp:
        files = [Path(tmp)/o for _, o in FILES.values()]
        for (size, _), o in zip(FILES.values(), files): picture(size).save(o)
        for i, (name, (arch, n_classes, c_in, side)) in enumerate(NETWORKS.items()):
            net = build_model(arch, n_classes, c_in).eval()
            clf = Classifier(net, arch, [f'class {k}' for k in range(n_classes)], Normalize([.5]*c_in, [.25]*c_in), (side, side))
            page = make_demo(clf, Path(tmp)/f'page{i}', files)
            found = milliseconds(chromium, page.parent, rounds)
            params = sum(p.numel() for p in net.parameters())
            result['networks'].append(dict(name=name, params=params, side=side,
                ms={k: spread([round(o, 2) for o in v]) for k, v in zip(FILES, found)}))
            print(json.dumps(result['networks'][-1], ensure_ascii=False))
    write_atomically(OUT, json.dumps(result, indent=1, ensure_ascii=False) + '\n')


if __name__ == '__main__': main()
