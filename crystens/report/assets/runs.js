// Sorts the rows of a table by the column whose head is clicked; the second click turns the order around.
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const place = Number(head.dataset.sort);
    const sign = head.dataset.sign === "1" ? -1 : 1;
    head.dataset.sign = String(sign);
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const order = (first, second) => {
      const [a, b] = [value(first), value(second)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b);
    };
    body.append(...[...body.rows].sort(order));
  });
}
