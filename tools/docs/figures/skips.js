// A trained residual network: a picture goes in, or is drawn; its maps, layer by layer, and its answer; and a switch that takes skips away
import {choice, choose, data, latest, pixelsOf, select, standIn} from './parts.js';
import {Network, top} from './web/network.js';
import {drawSeen} from './web/maps.js';
import {pen} from './web/pen.js';
import {make, percent, picture, ranking, showLayers} from './web/show.js';

// The ways to switch a network of n blocks: [name, what is off]; branches stand at 0, 2, 4, …, identity paths at 1, 3, 5, …
export function ways(n) {
  const blocks = [...Array(n).keys()];
  return [['as it was trained', []], ['all skips away: branches alone', blocks.map(i => 2 * i + 1)],
    ...blocks.map(i => [`block ${i + 1}: its branch off`, [2 * i]]), ...blocks.map(i => [`block ${i + 1}: its skip off`, [2 * i + 1]])];
}

export const switches = (n, off) => Array.from({length: 2 * n}, (_, i) => off.includes(i) ? 0 : 1);

export async function figure(box, folder) {
  const {about, pictures} = await data(folder), net = new Network(folder), all = ways(about.blocks), now = {pixels: pixelsOf(pictures[0], about), i: 0, way: 0};
  net.manifest = about;
  await net.start();
  const seen = picture('The picture as the network sees it'), answer = make('div'), said = make('output', {className: 'sl-quiet'}), score = make('p', {className: 'sl-quiet'});
  const layers = make('div', {className: 'sl-layers'}), asked = o => net.ask({...o, inputs: {switches: switches(about.blocks, all[now.way][1])}});

  const look = latest(async () => {
    const {pixels, i, way} = now, got = await asked({pixels, maps: true}), [best, p] = top(got.probs, 1)[0];
    drawSeen(seen, got.seen, about);
    answer.replaceChildren(ranking(got.probs, about.classes, 4));
    said.textContent = `${i < 0 ? 'A drawing' : `Labelled ${about.names[i]}`}; the network, ${all[way][0]}, says ${about.classes[best]} (${percent(p)}).`;
    showLayers(layers, about.layers, got.maps, 8);
  });
  const scores = {};
  const count = latest(async () => {
    const {way} = now;
    score.textContent = scores[way] ?? 'Asking about all pictures …';
    if (scores[way]) return;
    let right = 0;
    for (const [i, o] of pictures.entries()) {
      if (way !== now.way) return;
      right += top((await asked({pixels: pixelsOf(o, about)})).probs, 1)[0][0] === about.labels[i];
    }
    score.textContent = scores[way] = `So switched, it names ${right} of the ${pictures.length} pictures above rightly.`;
  });

  const pad = pen(make('canvas', {width: 280, height: 280, className: 'sl-pad'}), {size: 22, done: () => drawn(), moved: () => drawn()});
  const drawn = () => { choose(some, -1); Object.assign(now, {pixels: pad.pixels(), i: -1}); return look(); };
  const canvas = pad.canvas;
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', 'A black square to draw on in white');
  const clear = make('button', {type: 'button', textContent: 'Clear'});
  clear.addEventListener('click', () => { pad.clear(); drawn(); });
  const some = choice(`${pictures.length} test pictures`, pictures, about.names, about, i => { Object.assign(now, {pixels: pixelsOf(pictures[i], about), i}); look(); });
  const way = select('Skips', all.map(([name], i) => [i, name]), v => { now.way = +v; look(); count(); });
  const note = 'The residual network of these pages, trained when this site was built, on a part of the pictures and for one epoch only.';
  box.replaceChildren(...standIn(about), make('p', {className: 'sl-quiet', textContent: note}), some, way, make('div', {className: 'sl-row'}, make('div', {}, make('p', {className: 'sl-quiet', textContent: 'or draw: '}, clear), canvas),
    make('div', {}, make('p', {className: 'sl-quiet', textContent: 'what it sees'}), seen),
    make('div', {className: 'sl-answer'}, make('p', {className: 'sl-quiet', textContent: 'what it says'}), answer, said)), score,
  make('p', {className: 'sl-quiet', textContent: 'Of each layer the eight maps that differ most from place to place, each from its own least (dark) to its own most (bright).'}), layers);
  choose(some, 0);
  await look();
  count();
}
