// A network at several moments of a training, each with its norms' memory as it was and measured anew: the same pictures, two columns of answers
import {data, latest, pixelsOf, slider, standIn} from './parts.js';
import {Network, top} from './web/network.js';
import {drawSeen} from './web/maps.js';
import {make, percent, picture} from './web/show.js';

const MEMORIES = ['as the norms remember', 'measured anew'];

export async function figure(box, folder) {
  const {about, pictures} = await data(folder), net = new Network(folder), last = about.steps.length - 1;
  net.manifest = about;
  await net.start();
  const cells = pictures.map(() => MEMORIES.map(() => make('td'))), sums = MEMORIES.map(() => make('td')), all = MEMORIES.map(() => make('td'));
  const ask = async (i, moment, m) => top((await net.ask({pixels: pixelsOf(pictures[i], about), inputs: {switches: [moment, m]}})).probs, 1)[0];

  const look = latest(async moment => {
    const right = [0, 0];
    all.forEach((o, m) => { o.textContent = percent(about.right[2 * moment + m]); });
    for (const i of pictures.keys()) {
      for (const m of [0, 1]) {
        const [best, p] = await ask(i, moment, m), ok = best === about.labels[i];
        right[m] += ok;
        cells[i][m].className = ok ? 'sl-right' : '';
        cells[i][m].textContent = `${ok ? '✓' : '✗'} ${about.classes[best]} (${percent(p)})`;
      }
    }
    sums.forEach((o, m) => { o.textContent = `${right[m]} of ${pictures.length}`; });
  });
  const moment = slider('Moment of the training', last, v => set(v));
  const set = v => {
    moment.say(`step ${about.steps[v]} of ${about.steps[last]}`);
    return look(v);
  };

  const th = (text, scope) => make('th', {textContent: text, scope});
  const row = (name, tds) => make('tr', {}, th(name, 'row'), ...tds);
  const rows = pictures.map((o, i) => {
    const canvas = picture(about.names[i]);
    drawSeen(canvas, o, about);
    return make('tr', {}, make('th', {scope: 'row'}, canvas), ...cells[i]);
  });
  const note = 'A small relative of the page’s failing network: its recipe, with fewer channels, classes and steps, trained when this site was built.';
  box.replaceChildren(...standIn(about), moment, make('p', {className: 'sl-quiet', textContent: note}), make('table', {className: 'sl-memory'},
    make('caption', {textContent: 'The same pictures, which the network was not trained on, and the same weights'}),
    make('thead', {}, make('tr', {}, th('picture', 'col'), ...MEMORIES.map(o => th(o, 'col')))),
    make('tbody', {}, row(`right of ${about.n_test}`, all), row('right of these', sums), ...rows)));
  moment.range.value = about.first;
  await set(about.first);
}
