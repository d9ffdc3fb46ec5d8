'use strict';
// Tables that the report wrote as plain HTML, made sortable by their headings and searchable. A cell's data-value is what
// it is sorted by.

function makeSortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll('thead th').forEach((heading, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener('click', () => {
      const descending = heading.getAttribute('aria-sort') !== 'descending';
      for (const other of table.querySelectorAll('thead th')) other.removeAttribute('aria-sort');
      heading.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      const key = row => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const rows = [...body.rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function makeSearchable(input, table, count) {
  const search = () => {
    const words = input.value.toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = words !== '' && !row.textContent.toLowerCase().includes(words);
      if (!row.hidden) ++shown;
    }
    count.textContent = words === '' ? '' : `${shown} of ${table.tBodies[0].rows.length}`;
  };
  input.addEventListener('input', search);
}

function initTables() {
  for (const section of document.querySelectorAll('section[data-table]')) {
    const table = section.querySelector('table');
    if (!table) continue;
    makeSortable(table);
    const input = section.querySelector('input[type=search]');
    if (input) makeSearchable(input, table, section.querySelector('output'));
  }
}
