/** Figures as people read them. Pure. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** @param {number} value `1234567` is `1,234,567`; what is small has a decimal or two. */
export function count(value) {
  if (!Number.isFinite(value)) return "–";
  if (Number.isInteger(value) || value >= 100) return whole.format(value);
  return value.toLocaleString("en", { maximumSignificantDigits: 2 });
}

/** @param {number} value */
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** @param {number} seconds A span, in its two largest units. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const [days, hours, minutes] = [
    Math.floor(seconds / 86400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

/** @param {number} seconds A short time, for people. */
export function brief(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  return seconds < 10 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(0)} s`;
}

/** @param {number} share From 0 to 1. */
export const percent = (share) => (Number.isFinite(share) ? `${(share * 100).toFixed(1)} %` : "–");

const two = (/** @type {number} */ number) => String(number).padStart(2, "0");

/** @param {Date} when In this browser's time; the day only if it isn't today. */
export function moment(when, now = new Date()) {
  const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
  return when.toDateString() === now.toDateString() ? time : `${day(when)} ${time}`;
}

/** @param {Date} when Year, month, day. */
const day = (when) => `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;

/** @param {Date} when To the minute. */
export const date = (when) =>
  Number.isNaN(when.getTime()) ? "–" : `${day(when)} ${two(when.getHours())}:${two(when.getMinutes())}`;

/** @param {number} number @param {string} one @param {string} several */
export const many = (number, one, several = `${one}s`) => `${count(number)} ${number === 1 ? one : several}`;
