// The page for one's own network: pictures in, names and maps out. Names of files are only ever set as text, as those of classes are
import {Network, top} from './network.js';
import {drawSeen} from './maps.js';
import {pen} from './pen.js';
import {make, percent, picture, ranking, showLayers} from './show.js';

const MOST = 60;   // answers that stay on the page
const $ = id => document.getElementById(id);
const say = text => { $('state').textContent = text; };
const trouble = text => { $('trouble').textContent = text; $('trouble').hidden = false; };
const net = new Network('./');
let about;

async function begin() {
  about = await net.about();
  const {classes, channels, size: [h, w], title} = about;
  document.title = $('title').textContent = title;
  const some = classes.slice(0, 12).join(', ') + (classes.length > 12 ? ', …' : '');
  $('about').textContent = `This network names one of ${classes.length} classes (${some}) in pictures of ${h}×${w} pixels, ` +
    `${channels === 1 ? 'gray' : 'in colour'}. It always answers with one of them, even where the picture shows none.`;
  $('bring').hidden = false;
  for (const {file, name} of about.examples) {
    const img = make('img', {src: file, alt: name, loading: 'lazy'}), button = make('button', {type: 'button', title: name}, img);
    button.addEventListener('click', async () => bring([[name, await (await fetch(file)).blob()]]));
    $('examples').append(button);
    $('examples').hidden = false;
  }
  if (channels === 1 && Math.max(h, w) <= 32) drawing();
  camera();
}

// ---- the ways in

const named = files => [...files].map(o => [o.name || 'a pasted picture', o]);
$('files').addEventListener('change', e => { bring(named(e.target.files)); e.target.value = ''; });
for (const o of ['dragover', 'dragenter']) document.addEventListener(o, e => { e.preventDefault(); $('drop').classList.add('over'); });
document.addEventListener('dragleave', e => { if (!e.relatedTarget) $('drop').classList.remove('over'); });
document.addEventListener('drop', e => { e.preventDefault(); $('drop').classList.remove('over'); bring(named(e.dataTransfer.files)); });
document.addEventListener('paste', e => { if (e.clipboardData.files.length) bring(named(e.clipboardData.files)); });

function drawing() {
  const pad = pen($('pad'), {done: () => bring([['the drawing', {pixels: pad.pixels()}]])});
  $('clear').addEventListener('click', pad.clear);
  $('drawing').hidden = false;
}

async function camera() {
  const all = await navigator.mediaDevices?.enumerateDevices?.().catch(() => []) || [];
  if (!all.some(o => o.kind === 'videoinput')) return;
  const video = $('video'), close = () => { video.srcObject?.getTracks().forEach(o => o.stop()); video.srcObject = null; $('film').hidden = true; };
  $('camera').hidden = false;
  $('camera').addEventListener('click', async () => {
    try { video.srcObject = await navigator.mediaDevices.getUserMedia({video: true}); } catch (e) { return say(`The camera can't be used (${e.name}).`); }
    $('film').hidden = false;
    await video.play();
  });
  $('stop').addEventListener('click', close);
  $('shoot').addEventListener('click', () => {
    const [width, height] = [video.videoWidth, video.videoHeight], cx = make('canvas', {width, height}).getContext('2d');
    cx.drawImage(video, 0, 0);
    bring([['from the camera', {pixels: {width, height, channels: 4, data: cx.getImageData(0, 0, width, height).data}}]]);
  });
}

// ---- the answers

async function bring(pictures) {
  if (!pictures.length) return;
  $('answered').hidden = false;
  const megabytes = ((about.bytes + 14.3e6) / 1e6).toFixed(0);
  if (!net.ready) say(`Loading the network, once: ${megabytes} MB …`);
  try { await net.start(); } catch (e) { say(''); return trouble(e.message); }
  for (const [i, [name, what]] of pictures.entries()) {
    say(pictures.length > 1 ? `Picture ${i + 1} of ${pictures.length} …` : 'Looking …');
    const asked = what.pixels ? what : {file: what};
    try {
      const said = await net.ask({...asked, maps: i === pictures.length - 1});
      card(name, said, asked);
      if (said.maps) inside(name, said);
      say(`${name}: ${about.classes[top(said.probs, 1)[0][0]]} (${percent(top(said.probs, 1)[0][1])}), in ${Math.round(said.ms)} ms.`);
    } catch (e) {
      $('answers').prepend(make('p', {className: 'bad', textContent: `${name}: ${e.message}`}));
      say(`${name}: no answer.`);
    }
    while ($('answers').children.length > MOST) $('answers').lastChild.remove();
  }
}

function card(name, {probs, seen, words, animated}, asked) {
  const canvas = picture('The picture as the network sees it');
  const notes = [animated && 'of the animation, the first picture', words].filter(Boolean).join('; ');
  drawSeen(canvas, seen, about);
  const look = make('button', {type: 'button', textContent: 'Layer by layer'});
  const box = make('article', {}, canvas, make('div', {}, make('h3', {textContent: name}), ranking(probs, about.classes),
    ...(notes ? [make('p', {className: 'quiet', textContent: notes})] : []), ...(about.layers.length ? [look] : [])));
  look.setAttribute('aria-label', `Layer by layer: ${name}`);
  look.addEventListener('click', async () => {
    const said = await net.ask({...asked, maps: true});
    current(box);
    inside(name, said);
    $('inside').scrollIntoView({behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'});
  });
  $('answers').prepend(box);
  current(box);
}

function current(box) {
  $('answers').querySelectorAll('[aria-current]').forEach(o => o.removeAttribute('aria-current'));
  box.setAttribute('aria-current', 'true');
}

function inside(name, {maps}) {
  if (!about.layers.length) return;
  $('inside').hidden = false;
  $('inside-of').textContent = `What each layer finds in ${name}: its maps that differ most from place to place, each from its own least (dark) to its own most (bright).`;
  showLayers($('layers'), about.layers, maps);
}

if (location.protocol !== 'file:') begin().catch(e => trouble(`The page is not complete: ${e.message}.`));
