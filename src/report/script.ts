/**
 * What the page can do beyond showing: tables are sorted by their headers and narrowed by a word, the map tells what is under the pointer at once,
 * and a link to a row opens what the row is in. Without JavaScript nothing is missing but this.
 */
export const SCRIPT = `'use strict';
(() => {
  for (const table of document.querySelectorAll('table.sortable')) {
    const body = table.tBodies[0];
    const key = (row, index) => {
      const cell = row.cells[index];
      return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
    };
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const numeric = head.classList.contains('number');
        const sorted = head.getAttribute('aria-sort');
        const up = sorted ? sorted === 'descending' : !numeric;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        const keyed = [...body.rows].map((row) => ({ row, key: key(row, index) }));
        keyed.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) * (up ? 1 : -1));
        body.append(...keyed.map(({ row }) => row));
      });
    });
    if (body.rows.length < 12) continue;
    const input = document.createElement('input');
    input.type = 'search';
    input.placeholder = 'Filter';
    input.setAttribute('aria-label', 'Filter: ' + table.caption.textContent);
    input.addEventListener('input', () => {
      const word = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(word);
    });
    table.parentElement.before(input);
  }

  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const details = target && target.closest('details');
    if (details && !details.open) {
      details.open = true;
      target.scrollIntoView({ block: 'center' });
    }
  };
  addEventListener('hashchange', reveal);
  reveal();

  const map = document.querySelector('.map');
  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  tip.setAttribute('aria-hidden', 'true');
  document.body.append(tip);
  const texts = new Map();
  for (const hit of document.querySelectorAll('.map .hit')) {
    const title = hit.querySelector('title');
    texts.set(hit, title.textContent);
    (hit.closest('a') || hit).setAttribute('aria-label', title.textContent);
    title.remove();
  }
  const show = (hit) => {
    const box = hit.getBoundingClientRect();
    tip.textContent = texts.get(hit);
    tip.hidden = false;
    const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top > tip.offsetHeight + 12;
    tip.style.left = left + scrollX + 'px';
    tip.style.top = (above ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + scrollY + 'px';
  };
  const hide = () => { tip.hidden = true; };
  if (map) {
    const find = (event) => {
      const own = event.target.closest('.hit') || (event.target.closest('a') || map).querySelector(':scope > .hit');
      return own && texts.has(own) ? own : null;
    };
    map.addEventListener('pointerover', (event) => { const hit = find(event); if (hit) show(hit); else hide(); });
    map.addEventListener('pointerleave', hide);
    map.addEventListener('focusin', (event) => { const hit = find(event); if (hit) show(hit); });
    map.addEventListener('focusout', hide);
    addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
  }
})();
`;
