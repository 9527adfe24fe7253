// SPDX-License-Identifier: MIT
// What the pages of reports and of holders share.
'use strict';

const $ = (id) => document.getElementById(id);

// Characters that would not be seen, or that turn a line around.
const visible = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
  (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);

function element(name, properties, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

// As tracemalloc prints sizes.
function sizeText(bytes, signed) {
  const sign = bytes < 0 ? '-' : signed && bytes > 0 ? '+' : '';
  let size = Math.abs(bytes);
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (size < 100 && unit !== 'B') return `${sign}${size.toFixed(1)} ${unit}`;
    if (size < 10 * 1024 || unit === 'TiB') return `${sign}${size.toFixed(0)} ${unit}`;
    size /= 1024;
  }
}
const countText = (count, signed) => (signed && count > 0 ? '+' : '') + count.toLocaleString('en');

function timeText(seconds) {
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

