// Making and keeping elements. Texts go in by textContent only, so that no text is ever markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  for (const child of children) {
    node.append(typeof child === "string" ? document.createTextNode(child) : child);
  }
  return node;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const find = (id) => document.getElementById(id);

// Changes only what differs: a screen reader is told of nothing that stayed.
function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function set(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// Keeps the children of a container in step with items: those of a key stay, with focus and all.
// `make` gives { node, update(item) }.
function keep(container, items, key, make) {
  const kept = container.kept ?? new Map();
  const next = new Map();
  let place = container.firstChild;
  for (const item of items) {
    const name = key(item);
    if (next.has(name)) continue;
    const part = kept.get(name) ?? make(item);
    next.set(name, part);
    part.update(item);
    if (part.node === place) place = place.nextSibling;
    else container.insertBefore(part.node, place);
  }
  for (const [name, part] of kept) if (!next.has(name)) part.node.remove();
  container.kept = next;
}
