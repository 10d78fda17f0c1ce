// Below each picture that can be more than a picture: a button. Nothing else is fetched before somebody presses it
const here = name => new URL(name, import.meta.url).href;

for (const still of document.querySelectorAll('figure[data-live]')) {
  const {live, says} = still.dataset, button = document.createElement('button'), box = document.createElement('div'), row = document.createElement('p');
  const show = open => {
    still.classList.toggle('sl-still', open);
    box.hidden = !open;
    button.setAttribute('aria-expanded', open);
    button.textContent = open ? 'Back to the still picture' : says;
  };
  Object.assign(button, {type: 'button', className: 'sl-play'});
  row.className = 'sl-play-row';
  row.append(button);
  Object.assign(box, {className: 'sl-live', tabIndex: -1});
  box.setAttribute('role', 'group');
  box.setAttribute('aria-label', 'Live figure');
  show(false);
  still.after(row, box);
  let made = null;
  const make = async () => {
    box.innerHTML = '<p role="status">Loading …</p>';
    try {
      const {figure} = await import(`./${live}.js`);
      await figure(box, here(`${live}/`));
      box.focus({preventScroll: true});
    } catch (e) {
      const p = document.createElement('p');
      p.className = 'sl-trouble';
      p.setAttribute('role', 'alert');
      p.textContent = e.message.startsWith('This browser') ? e.message : `The figure can't be made live here: ${e.message}.`;
      box.replaceChildren(p);
      made = null;   // another press tries again
    }
  };
  button.addEventListener('click', () => {
    const open = box.hidden;
    show(open);
    if (open) made ??= make();
  });
}
