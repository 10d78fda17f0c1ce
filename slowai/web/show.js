// What the demo page and the figures of the site show alike: ranked names, and the layers' maps. Names are only ever set as text
import {drawMaps} from './maps.js';
import {top} from './network.js';

export const make = (tag, props = {}, ...inside) => { const o = Object.assign(document.createElement(tag), props); o.append(...inside); return o; };
export const percent = p => p >= .9995 ? '100\u00a0%' : `${(100 * p).toFixed(1)}\u00a0%`;

// A canvas that a screen reader calls by name
export function picture(name) {
  const canvas = make('canvas');
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', name);
  return canvas;
}

// The most likely classes, each with a bar as long as it is likely
export function ranking(probs, classes, k = 5) {
  const list = make('ol', {className: 'ranking'});
  for (const [i, p] of top(probs, k)) {
    const bar = make('i');
    bar.style.width = `${(100 * p).toFixed(1)}%`;
    list.append(make('li', {}, bar, make('span', {dir: 'auto', textContent: classes[i]}), make('span', {textContent: percent(p)})));
  }
  return list;
}

// A row of maps for each layer, into a box that keeps its canvases from picture to picture
export function showLayers(box, layers, maps, k = 16, across = 8) {
  layers.forEach((o, i) => {
    const text = `${i + 1}. ${o.type}: ${o.channels} maps of ${o.height}×${o.width}`;
    if (!box.children[i]) box.append(make('figure', {}, make('figcaption', {textContent: text}), picture(`Maps of layer ${text}`)));
    drawMaps(box.children[i].querySelector('canvas'), maps[i], o, k, across);
  });
}
