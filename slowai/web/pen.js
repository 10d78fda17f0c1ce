// A canvas to draw on with mouse, finger or pen: white on black, as the pictures of FashionMNIST are. `done` is called when a stroke ends
export function pen(canvas, {done = () => {}, moved = () => {}, size = 18} = {}) {
  const cx = canvas.getContext('2d', {willReadFrequently: true});
  let at = null;
  const clear = () => { cx.fillStyle = '#000'; cx.fillRect(0, 0, canvas.width, canvas.height); };
  const place = e => {
    const r = canvas.getBoundingClientRect();
    return [(e.clientX - r.left) * canvas.width / r.width, (e.clientY - r.top) * canvas.height / r.height];
  };
  const line = to => {
    Object.assign(cx, {strokeStyle: '#fff', lineWidth: size, lineCap: 'round', lineJoin: 'round'});
    cx.beginPath();
    cx.moveTo(...at);
    cx.lineTo(...to);
    cx.stroke();
    at = to;
  };
  canvas.style.touchAction = 'none';
  canvas.addEventListener('pointerdown', e => {
    if (e.button) return;
    canvas.setPointerCapture(e.pointerId);
    at = place(e);
    line(at);
    e.preventDefault();
  });
  canvas.addEventListener('pointermove', e => { if (at) { line(place(e)); moved(); } });
  for (const o of ['pointerup', 'pointercancel']) canvas.addEventListener(o, () => { if (at) { at = null; done(); } });
  clear();
  const pixels = () => {
    const {data, width, height} = cx.getImageData(0, 0, canvas.width, canvas.height);
    return {width, height, channels: 4, data};
  };
  return {canvas, clear, pixels, draw: im => { clear(); cx.drawImage(im, 0, 0, canvas.width, canvas.height); }};
}
