// Elements, made one by one: whatever text comes in is text, and never markup.

/** An element; `props` are its properties, those with a dash or a colon its attributes; null ones are left out. */
export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing, with attributes. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Whether it differs: what is the same is not written again, so that nobody is told twice, and a selection stays. */
export function say(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

/** `count` things, in words. */
export function some(count, one, many = `${one}s`) {
  return count === 1 ? `1 ${one}` : `${count.toLocaleString("en")} ${many}`;
}
