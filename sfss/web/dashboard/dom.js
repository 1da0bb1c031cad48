/**
 * Elements, made of words. What comes from elsewhere, a file's name above all, becomes text and never markup: nothing
 * here or anywhere in this page takes HTML (and the page's Content-Security-Policy has the browser refuse it).
 */

/** @param {string} id @returns {any} The element of the page that has that id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element. Properties are its attributes, except for `on`, which has listeners by event, `style`, an object, and those
 * that are false, null or undefined, which are left out.
 *
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Node | string | number | null | undefined)} children
 * @returns {any}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "on") for (const [event, heed] of Object.entries(value)) made.addEventListener(event, heed);
    else if (name === "style") Object.assign(made.style, value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(
    ...children
      .filter((child) => child !== null && child !== undefined)
      .map((child) => (child instanceof Node ? child : String(child))),
  );
  return made;
}

/** A name that somebody has given: its direction doesn't run on into what stands beside it. @param {string} name */
export const named = (name) => el("bdi", {}, name);

/** A term and what is to be said of it, for a `dl`. @param {string} term @param {...any} words */
export const fact = (term, ...words) => el("div", {}, el("dt", {}, term), el("dd", {}, ...words));

/**
 * Have an element show these children, by changing only what differs: what is selected or focused stays so. For what is
 * only shown; listeners of new children that are like the old ones aren't taken over.
 *
 * @param {Element} parent
 * @param {(Node | string)[]} children
 */
export function show(parent, children) {
  const there = [...parent.childNodes];
  const wanted = children.map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  wanted.forEach((child, at) => {
    if (at >= there.length) parent.append(child);
    else if (isLike(there[at], child)) become(there[at], child);
    else there[at].replaceWith(child);
  });
  for (const left of there.slice(wanted.length)) left.remove();
}

/** Set an element's text, if it is another one: a live region isn't read out again for nothing. */
export function say(/** @type {Element} */ element, /** @type {string} */ text) {
  if (element.textContent !== text) element.textContent = text;
}

const isLike = (/** @type {Node} */ one, /** @type {Node} */ other) =>
  one.nodeType === other.nodeType && one.nodeName === other.nodeName;

function become(/** @type {any} */ there, /** @type {any} */ wanted) {
  if (there.nodeType === Node.TEXT_NODE) {
    if (there.data !== wanted.data) there.data = wanted.data;
    return;
  }
  for (const { name } of [...there.attributes])
    if (name !== "style" && !wanted.hasAttribute(name)) there.removeAttribute(name);
  for (const { name, value } of wanted.attributes) {
    if (name !== "style" && there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  if (there.style.cssText !== wanted.style.cssText) there.style.cssText = wanted.style.cssText;
  show(there, [...wanted.childNodes]);
}
