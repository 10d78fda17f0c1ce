// Pixels as the page's modules make them, against those that test_demo.py had PIL make: node pixels.mjs slowai/web FOLDER
import fs from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const [web, folder] = process.argv.slice(2), load = name => import(pathToFileURL(path.resolve(web, name)));
const {openPicture} = await load('picture.js'), {fitPicture} = await load('resize.js');
const jobs = JSON.parse(fs.readFileSync(path.join(folder, 'jobs.json')));
let equal = 0;
for (const o of jobs) {
  try {
    const bytes = new Uint8Array(fs.readFileSync(path.join(folder, o.file)));
    const {data, words} = fitPicture(await openPicture(bytes, o.size), o), want = fs.readFileSync(path.join(folder, o.want));
    const off = want.reduce((n, v, i) => n + (v !== data[i]), 0);
    if (!off && data.length === want.length && words === o.words) equal++;
    else console.log(`${o.file} at ${o.size}: ${off} of ${want.length} differ; '${words}', '${o.words}'`);
  } catch (e) { console.log(`${o.file} at ${o.size}: ${e.stack}`); }
}
console.log(`${equal} equal`);
