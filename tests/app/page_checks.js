// What tests ask of a page; page_checks.py puts this into the page and calls it.
window.checks = (function () {
  "use strict";
  function all(what) { return Array.from(document.querySelectorAll(what)); }
  function isDrawn(e) { return e.getClientRects().length > 0; }
  function short(e) {
    var text = e.textContent.trim().replace(/\s+/g, " ").slice(0, 60);
    var table = e.closest("table");
    return e.tagName + "." + e.className + " " + (table ? table.getAttribute("aria-label") : text);
  }

  function images() {
    return all("img").filter(function (i) { return !i.complete || !i.naturalWidth || !i.alt; })
      .map(function (i) { return i.alt || i.src.slice(0, 80); });
  }

  // Elements that stick out of the window, and text that sticks out of its box.
  function wide() {
    var width = document.documentElement.clientWidth, out = [];
    var inner = ".table, .sheet, .ticks, pre"; // these scroll, or have labels in the margin
    if (document.documentElement.scrollWidth > width) { out.push("the page"); }
    all("body *").forEach(function (e) {
      if (!isDrawn(e) || e.closest(inner + ", svg, option, select, .skip")) { return; }
      var box = e.getBoundingClientRect(), style = getComputedStyle(e);
      if (box.right > width + 1 || box.left < -1) { out.push(short(e)); }
      if (style.display === "inline" || /auto|scroll/.test(style.overflowX)) { return; }
      if (/^(BODY|MAIN|SECTION)$/.test(e.tagName) || e.querySelector(inner)) { return; }
      if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) { out.push("text of " + short(e)); }
    });
    return out;
  }

  // Contrast of text below 4.5 (WCAG AA).
  function contrast() {
    function rgb(text) { return text.match(/[\d.]+/g).map(Number); }
    function light(colour) {
      var part = colour.slice(0, 3).map(function (v) {
        return v / 255 <= 0.03928 ? v / 255 / 12.92 : Math.pow((v / 255 + 0.055) / 1.055, 2.4);
      });
      return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    }
    function under(e) {
      for (; e; e = e.parentElement) {
        var colour = rgb(getComputedStyle(e).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) { return colour; }
      }
      return [255, 255, 255];
    }
    var texts = "p, td, th, dt, dd, li, a:not(.here), small, strong, figcaption, h1, h2, h3, "
      + "button, code, label > span";
    return all(texts).filter(isDrawn).filter(function (e) { return e.textContent.trim(); })
      .map(function (e) {
        var a = light(rgb(getComputedStyle(e).color)), b = light(under(e));
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), short(e)];
      }).filter(function (one) { return one[0] < 4.5; });
  }

  // Each link of the contents and of headings brings its target to the top of the window.
  function navigation() {
    var out = [];
    all("nav a, a.here").forEach(function (a) {
      a.click();
      var target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target) { out.push("no target of " + a.getAttribute("href")); return; }
      var top = target.getBoundingClientRect().top;
      var isEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
      if (top < -2 || (top > 60 && !isEnd)) { out.push(a.getAttribute("href") + " at " + top); }
    });
    scrollTo(0, 0);
    return out;
  }

  // What clicking each heading twice does to the cells of its column.
  function sorting() {
    function cells(table, k) {
      return Array.from(table.tBodies[0].rows).map(function (row) {
        var given = row.cells[k].getAttribute("data-sort");
        return given === null ? row.cells[k].textContent.trim() : given;
      });
    }
    var found = [];
    all("table[data-sortable]").forEach(function (table) {
      Array.from(table.tHead.rows[0].cells).forEach(function (head, k) {
        var one = { table: table.getAttribute("aria-label"), column: head.textContent,
          is_number: head.classList.contains("number"), before: cells(table, k), after: [], said: [] };
        for (var click = 0; click < 2; click++) {
          head.querySelector("button").click();
          one.after.push(cells(table, k));
          one.said.push(head.getAttribute("aria-sort"));
        }
        found.push(one);
      });
    });
    return found;
  }

  function twice() {
    var seen = new Set();
    return all("[id]").map(function (e) { return e.id; }).filter(function (id) {
      var again = seen.has(id);
      seen.add(id);
      return again;
    });
  }
  function links() { return all("a[href]").map(function (a) { return a.getAttribute("href"); }); }
  function captions() {
    return all("figure").map(function (f) {
      var caption = f.querySelector("figcaption");
      return caption ? caption.textContent : "";
    });
  }
  function drawn(what) { return all(what).filter(isDrawn).map(short); }
  function beyond(width) {
    var out = new Set();
    all("main *").forEach(function (e) {
      if (e.getBoundingClientRect().right > width + 1) { out.add(short(e)); }
    });
    return Array.from(out);
  }
  function frames() {
    return new Promise(function (done) {
      requestAnimationFrame(function () { requestAnimationFrame(function () { done(true); }); });
    });
  }
  return { images: images, wide: wide, contrast: contrast, navigation: navigation,
    sorting: sorting, twice: twice, links: links, captions: captions, drawn: drawn,
    beyond: beyond, frames: frames };
}());
