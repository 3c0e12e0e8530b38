"""The look and the behaviour of the page of a contact sheet, as CSS and plain JavaScript."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --muted: #656d76; --rule: #d0d7de; --empty: #f3f4f6;
  --failure: #b3261e; --broken: #fdeeee; --reused: #0969da; --finished: #1a7f37; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --muted: #8d96a0; --rule: #30363d; --empty: #161b22;
    --failure: #ff8b82; --broken: #2d1517; --reused: #6cb6ff; --finished: #56d364; }
}
* { box-sizing: border-box; }
body { margin: 0; width: max-content; min-width: 100%; background: var(--paper); color: var(--ink);
  font: 14px/1.4 system-ui, sans-serif; }
header { position: sticky; left: 0; width: 100vw; max-width: 100%; padding: 12px 16px 8px; display: flex;
  flex-wrap: wrap; gap: 4px 24px; align-items: center; }
h1 { font-size: 17px; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
header p { margin: 0; color: var(--muted); }
header label { display: flex; gap: 8px; align-items: center; margin-left: auto; color: var(--muted); }
main { padding: 0 16px 24px; }
section > h2 { position: sticky; left: 16px; width: fit-content; font-size: 15px; margin: 16px 0 4px; }
table { border-collapse: separate; border-spacing: 0; }
section th, thead td { background: var(--paper); font-weight: 400; padding: 2px 6px; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
thead { position: sticky; top: 0; z-index: 2; }
thead th[scope] { vertical-align: bottom; }
thead th[scope=colgroup] { border-bottom: 1px solid var(--rule); }
tbody th, .corner { position: sticky; z-index: 1; text-align: right; padding-right: 10px; }
tbody th[scope=rowgroup] { border-right: 1px solid var(--rule); }
section td { padding: 2px; vertical-align: top; }
section .label { color: var(--muted); font-size: 12px; text-align: center; }
section .corner { text-align: right; padding-right: 10px; vertical-align: bottom; }
section tr.apart > * { padding-top: 14px; }
section td.apart, section th.apart { padding-left: 14px; }
td > button, .pending { display: flex; width: var(--size); height: calc(var(--size) * var(--ratio)); padding: 0;
  border: 0; align-items: center; justify-content: center; background: var(--empty); color: var(--muted);
  font: inherit; font-size: 12px; }
td > button { position: relative; cursor: zoom-in; }
td > button:hover, td > button:focus-visible { outline: 2px solid var(--reused); outline-offset: 1px; }
td > button.reused::after { content: ""; position: absolute; right: 4px; bottom: 4px; width: 7px; height: 7px;
  border-radius: 50%; background: var(--reused); border: 1px solid var(--paper); }
img { width: 100%; height: 100%; object-fit: contain; }
.enlarged img.small, #view img.small { image-rendering: pixelated; }
button.failed, #view .note { background: var(--broken); color: var(--failure); }
.mark { position: absolute; left: 0; right: 0; bottom: 0; padding: 1px 4px; background: var(--broken);
  color: var(--failure); overflow-wrap: anywhere; }
.note { text-align: center; }
.note b { display: block; font-size: 20px; line-height: 1; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
small { display: block; width: var(--size); padding: 2px 0 8px; text-align: center; font-size: 12px;
  overflow-wrap: anywhere; }
dialog { border: 1px solid var(--rule); border-radius: 10px; padding: 20px; background: var(--paper);
  color: var(--ink); max-width: 94vw; max-height: 94vh; }
dialog::backdrop { background: rgb(0 0 0 / 55%); }
#view { display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start; }
#view > img, #view > .note { width: min(70vmin, 640px); height: min(70vmin, 640px); }
#view > .note { display: grid; place-content: center; }
#view > div { width: 340px; max-width: 100%; padding-right: 16px; }
#view h2 { font-size: 16px; margin: 0 0 4px; overflow-wrap: anywhere; }
#view p { margin: 0 0 12px; color: var(--muted); }
#view th, #view td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-top: 1px solid var(--rule);
  overflow-wrap: anywhere; }
#view table { width: 100%; }
#view th { font-weight: 400; color: var(--muted); overflow-wrap: break-word; }
.status { border: 1px solid; border-radius: 9px; padding: 1px 8px; margin-right: 6px; font-size: 12px; }
.status.finished { color: var(--finished); }
.status.reused { color: var(--reused); }
.status.failed { color: var(--failure); }
#close { position: absolute; top: 8px; right: 8px; border: 0; background: none; color: var(--muted); font-size: 16px;
  cursor: pointer; }
"""

SCRIPT = """
const root = document.documentElement, size = document.querySelector("#size");
const dialog = document.querySelector("dialog"), view = document.querySelector("#view");
const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
const natural = Number(size.value);
let shown = null;

function attempt(action) {  // a sandbox may refuse to store anything
  try { return action(); } catch { return null; }
}

function zoom() {
  root.style.setProperty("--size", size.value + "px");
  root.classList.toggle("enlarged", Number(size.value) >= natural);
}

function show(button) {
  const about = document.createElement("div");
  about.append(button.parentElement.querySelector("template").content.cloneNode(true));
  view.replaceChildren(button.firstElementChild.cloneNode(true), about);
  shown = button;
  if (!dialog.open) dialog.showModal();
  attempt(() => history.replaceState(null, "", "#" + button.id));
}

function findNeighbour(button, [down, right]) {  // over holes and pending cells
  const table = button.closest("table");
  let [row, column] = button.parentElement.dataset.at.split(",").map(Number);
  for (;;) {
    row += down;
    column += right;
    if (row < 0 || column < 0 || row >= table.dataset.rows || column >= table.dataset.columns) return null;
    const found = table.querySelector(`[data-at="${row},${column}"] > button`);
    if (found) return found;
  }
}

document.addEventListener("keydown", event => {
  const from = dialog.open ? shown : document.activeElement.closest("td > button");
  if (!moves[event.key] || !from) return;
  event.preventDefault();
  const next = findNeighbour(from, moves[event.key]);
  if (next && dialog.open) show(next); else if (next) next.focus();
});
document.querySelector("main").addEventListener("click", event => {
  const button = event.target.closest("td > button");
  if (button) show(button);
});
document.querySelector("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  attempt(() => history.replaceState(null, "", "#"));
  shown.focus();
});
size.addEventListener("input", () => {
  zoom();
  attempt(() => sessionStorage.setItem("size", size.value));
});
size.value = attempt(() => sessionStorage.getItem("size")) || size.value;
zoom();
const linked = location.hash && document.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`);
if (linked && linked.matches("td > button")) show(linked);
if (root.dataset.refresh) setInterval(() => { if (!dialog.open) location.reload(); }, root.dataset.refresh * 1000);
"""
