(function () {
  "use strict";
  function key(row, column) {
    var cell = row.cells[column];
    var given = cell.getAttribute("data-sort");
    return given === null ? cell.textContent.trim() : given;
  }
  function compare(a, b, numeric, sign) {
    if (a === "" || b === "") { return (a === "") - (b === ""); }
    return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  }
  function sort(table, column, numeric) {
    var header = table.tHead.rows[0].cells[column];
    var now = header.getAttribute("aria-sort");
    var next = now === "descending" ? "ascending" : now === "ascending" ? "descending"
      : numeric ? "descending" : "ascending";
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) {
      cell.setAttribute("aria-sort", "none");
    });
    header.setAttribute("aria-sort", next);
    var sign = next === "ascending" ? 1 : -1;
    var rows = Array.prototype.slice.call(table.tBodies[0].rows);
    rows.sort(function (x, y) { return compare(key(x, column), key(y, column), numeric, sign); });
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
  }
  document.querySelectorAll("table[data-sortable]").forEach(function (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell, column) {
      var numeric = cell.classList.contains("number");
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      cell.textContent = "";
      cell.appendChild(button);
      cell.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () { sort(table, column, numeric); });
    });
  });
}());
