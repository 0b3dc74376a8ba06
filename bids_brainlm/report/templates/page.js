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

  // Text to copy: a button that takes the block, or the section without its heading.
  document.querySelectorAll("[data-copy]").forEach(function (box) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    box.insertBefore(button, box.firstChild);
    button.addEventListener("click", function () {
      var parts = Array.prototype.map.call(
        box.querySelectorAll("pre, p:not(.aside), li"), function (e) { return e.textContent.trim(); });
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 2000); };
      var text = parts.join("\n\n");
      if (navigator.clipboard && window.isSecureContext) {
        navigator.clipboard.writeText(text).then(done, function () { byHand(text); done(); });
      } else { byHand(text); done(); }
    });
  });
  function byHand(text) {
    var area = document.createElement("textarea");
    area.value = text;
    document.body.appendChild(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }

  // The part of the page that is being read, in the contents.
  var links = {};
  document.querySelectorAll("nav a").forEach(function (a) { links[a.getAttribute("href").slice(1)] = a; });
  if (window.IntersectionObserver) {
    var current = null, seen = new Set(), heads = document.querySelectorAll("main section[id]");
    var watch = new IntersectionObserver(function (entries) {
      entries.forEach(function (e) { seen[e.isIntersecting ? "add" : "delete"](e.target); });
      var last = null;
      heads.forEach(function (s) { if (seen.has(s) && links[s.id]) { last = s; } });
      if (!last || last === current) { return; }
      if (current) { links[current.id].removeAttribute("aria-current"); }
      current = last;
      links[last.id].setAttribute("aria-current", "true");
    }, { rootMargin: "0px 0px -80% 0px" });
    heads.forEach(function (s) { watch.observe(s); });
  }
}());
