// What a layer has found, as pictures

const STOPS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
export function viridis(v) {
  const x = Math.min(Math.max(v, 0), 1) * 8, i = Math.min(Math.floor(x), 7), f = x - i;
  return STOPS[i].map((a, c) => Math.round(a + (STOPS[i + 1][c] - a) * f));
}

// The maps that differ most from place to place, at most `k`, in their own order
export function busiest(data, n, k) {
  const size = data.length / n, spread = i => {
    let a = 0, b = 0;
    for (let j = i * size; j < (i + 1) * size; j++) { a += data[j]; b += data[j] * data[j]; }
    return b / size - (a / size) ** 2;
  };
  return Array.from({length: n}, (_, i) => [spread(i), i]).sort((a, b) => b[0] - a[0]).slice(0, k).map(o => o[1]).sort((a, b) => a - b);
}

// Draw maps side by side into a canvas, each from its own least to its own most; small ones with larger squares
export function drawMaps(canvas, data, {channels, height, width}, k = 16, across = 8) {
  const which = busiest(data, channels, k), columns = Math.min(across, which.length), rows = Math.ceil(which.length / columns);
  const zoom = Math.max(1, Math.round(56 / width)), w = width * zoom, h = height * zoom, gap = Math.max(2, Math.round(w / 14)), size = width * height;
  canvas.width = columns * (w + gap) - gap;
  canvas.height = rows * (h + gap) - gap;
  const cx = canvas.getContext('2d'), im = cx.createImageData(canvas.width, canvas.height);
  which.forEach((m, n) => {
    const map = data.subarray(m * size, (m + 1) * size), lo = map.reduce((a, b) => Math.min(a, b)), hi = map.reduce((a, b) => Math.max(a, b));
    const x0 = n % columns * (w + gap), y0 = Math.floor(n / columns) * (h + gap);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const v = map[Math.floor(y / zoom) * width + Math.floor(x / zoom)];
        im.data.set([...viridis((v - lo) / (hi - lo || 1)), 255], 4 * ((y0 + y) * canvas.width + x0 + x));
      }
    }
  });
  cx.putImageData(im, 0, 0);
}

// The picture as the network sees it
export function drawSeen(canvas, data, {size: [h, w], channels}) {
  Object.assign(canvas, {width: w, height: h});
  const cx = canvas.getContext('2d'), im = cx.createImageData(w, h), n = w * h;
  for (let i = 0; i < n; i++) im.data.set([data[i], data[(channels > 1 ? n : 0) + i], data[(channels > 1 ? 2 * n : 0) + i], 255], 4 * i);
  cx.putImageData(im, 0, 0);
}
