// No module: the only part that also runs where the page was opened as a file, which browsers keep from fetching its own network
if (location.protocol === 'file:') {
  const o = document.getElementById('trouble');
  o.textContent = 'A browser lets a page that was opened as a file fetch nothing, so the network can\'t be loaded. In a terminal, in this folder: ' +
    'python3 -m http.server, then open http://localhost:8000 here. Or put the folder on any web host.';
  o.hidden = false;
}
