(function () {
  "use strict";
  // Draws parcel values on two hemispheres, triangle by triangle, into the pixels of a canvas.
  // A first pass (when the view turns) stores vertex and brightness of each pixel, a second one
  // (when values change) turns them into colours.
  var NOWHERE = 65535, NONE = -32768, GYRUS = 219, SULCUS = 178;
  var HALF = Math.PI / 2;
  var VIEWS = [
    ["lateral", -HALF, 0, false], ["medial", HALF, 0, false], ["top", 0, HALF, false],
    ["bottom", Math.PI, -HALF, true], ["front", Math.PI, 0, true], ["back", 0, 0, false]
  ];

  function bytes(text) {
    var raw = atob(text), out = new Uint8Array(raw.length);
    for (var k = 0; k < raw.length; k++) { out[k] = raw.charCodeAt(k); }
    return out;
  }
  function numbers(text, signed) {
    var raw = bytes(text), view = new DataView(raw.buffer), n = raw.length / 2;
    var out = signed ? new Int16Array(n) : new Uint16Array(n);
    for (var k = 0; k < n; k++) {
      out[k] = signed ? view.getInt16(2 * k, true) : view.getUint16(2 * k, true);
    }
    return out;
  }
  function element(name, attributes, parent, text) {
    var made = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) { made.textContent = text; }
    if (parent) { parent.appendChild(made); }
    return made;
  }
  function written(value, digits) {
    if (value === null) { return "–"; }
    var text = Math.abs(value) < 0.5 * Math.pow(10, -digits) ? (0).toFixed(digits) : value.toFixed(digits);
    return text.replace("-", "−");
  }
  function digitsOf(limit) { return Math.max(0, Math.min(5, 2 - Math.floor(Math.log10(limit)))); }

  // ---- meshes, read once -------------------------------------------------------------------
  var meshes = null;
  function normalsOf(places, faces) {
    var out = new Float32Array(places.length);
    for (var f = 0; f < faces.length; f += 3) {
      var a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      var ux = places[b] - places[a], uy = places[b + 1] - places[a + 1], uz = places[b + 2] - places[a + 2];
      var vx = places[c] - places[a], vy = places[c + 1] - places[a + 1], vz = places[c + 2] - places[a + 2];
      var nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      [a, b, c].forEach(function (k) { out[k] += nx; out[k + 1] += ny; out[k + 2] += nz; });
    }
    for (var k = 0; k < out.length; k += 3) {
      var size = Math.hypot(out[k], out[k + 1], out[k + 2]) || 1;
      out[k] /= size; out[k + 1] /= size; out[k + 2] /= size;
    }
    return out;
  }
  function readMeshes() {
    if (meshes) { return meshes; }
    var raw = JSON.parse(document.getElementById("brain-mesh").textContent);
    var faces = numbers(raw.faces, false);
    meshes = { faces: faces };
    ["left", "right"].forEach(function (side) {
      var own = raw.sides[side], bits = bytes(own.sulci), made = { surfaces: {} };
      ["inflated", "pial"].forEach(function (name) {
        var places = Float32Array.from(numbers(own[name], true), function (v) { return v / 100; });
        var extent = [0, 0, 0];
        for (var k = 0; k < places.length; k++) {
          extent[k % 3] = Math.max(extent[k % 3], Math.abs(places[k]));
        }
        made.surfaces[name] = { places: places, normals: normalsOf(places, faces), extent: extent };
      });
      made.n = made.surfaces.pial.places.length / 3;
      made.sulci = Uint8Array.from({ length: made.n }, function (_, k) { return bits[k >> 3] >> (k & 7) & 1; });
      meshes[side] = made;
    });
    return meshes;
  }

  // ---- one view ----------------------------------------------------------------------------
  function start(root) {
    var mesh = readMeshes();
    var data = JSON.parse(document.getElementById(root.getAttribute("data-source")).textContent);
    var colours = { diverging: bytes(data.colours.diverging), steps: bytes(data.colours.steps) };
    var state = {
      set: 0, map: 0, column: 0, threshold: 0, significant: false, surface: "inflated",
      side: "both", turn: -HALF, tilt: 0, swapped: false, kept: -1, pointed: -1
    };
    data.sets.forEach(function (set) {
      set.of = { left: numbers(set.rows.left, false), right: numbers(set.rows.right, false) };
      set.maps.forEach(function (map) {
        map.raw = numbers(map.values.data, true);
        map.qraw = map.q ? numbers(map.q.data, true) : null;
      });
    });
    root.textContent = "";
    var bar = element("div", { "class": "controls" }, root);
    function field(label, parent) {
      var box = element("label", {}, parent || bar);
      element("span", {}, box, label);
      return box;
    }
    var chooseSet = element("select", {}, field("Show"));
    data.sets.forEach(function (set, k) { element("option", { value: k }, chooseSet, set.title); });
    chooseSet.parentNode.hidden = data.sets.length < 2;
    var chooseMap = element("select", {}, field("Map"));
    var columnBox = field("");
    var chooseColumn = element("input", { type: "range", min: 0, step: 1 }, columnBox);
    var columnText = columnBox.firstChild;
    var thresholdBox = field("");
    var chooseThreshold = element("input", { type: "range", min: 0, max: 100, step: 1, value: 0 }, thresholdBox);
    var thresholdText = thresholdBox.firstChild;
    var significantBox = element("label", { "class": "check" }, bar);
    var chooseSignificant = element("input", { type: "checkbox" }, significantBox);
    var significantText = element("span", {}, significantBox);
    var chooseSurface = element("select", {}, field("Surface"));
    ["inflated", "pial"].forEach(function (name) { element("option", {}, chooseSurface, name); });
    var chooseSide = element("select", {}, field("Hemispheres"));
    ["both", "left", "right"].forEach(function (name) { element("option", {}, chooseSide, name); });
    var find = element("select", {}, field("Find"));
    var buttons = element("div", { "class": "views", role: "group", "aria-label": "Views" }, root);
    var stage = element("div", { "class": "stage" }, root);
    var canvas = element("canvas", {
      tabindex: 0, role: "img", "aria-label": "Cortex with the values of the chosen map; arrow keys turn it"
    }, stage);
    var names = [element("span", { "class": "side" }, stage), element("span", { "class": "side" }, stage)];
    var tip = element("div", { "class": "tip", hidden: "" }, stage);
    var legend = element("div", { "class": "legend" }, root);
    var scale = element("div", { "class": "scale", "aria-hidden": "true" }, legend);
    var ticks = element("div", { "class": "ticks" }, legend);
    var title = element("div", { "class": "what" }, legend);
    var told = element("div", { "class": "told", "aria-live": "polite" }, root);
    var pen = canvas.getContext("2d");
    var width = 0, height = 0, vertex = null, light = null, depth = null, image = null;

    function set() { return data.sets[state.set]; }
    function map() { return set().maps[state.map]; }
    function place(row, column) { return row * map().columns.length + column; }
    function value(row, column) {
      var raw = map().raw[place(row, column)];
      return raw === NONE ? null : raw * map().values.step;
    }
    function qOf(row, column) {
      var q = map().q;
      if (!q) { return null; }
      var raw = map().qraw[place(row, column)];
      return raw === NONE ? null : { value: (Math.abs(raw) - 1) / q.top, below: raw < 0 };
    }
    function isShown(row) {
      var found = value(row, state.column);
      if (found === null || Math.abs(found) < state.threshold) { return false; }
      var q = state.significant ? qOf(row, state.column) : null;
      return !state.significant || (q !== null && q.below);
    }
    function colourOf(found) {
      var of = map(), table = colours.diverging, k;
      if (of.steps) {
        table = colours.steps;
        var at = of.steps.indexOf(Math.round(found));
        k = of.steps.length < 2 ? 0 : Math.round(255 * Math.max(at, 0) / (of.steps.length - 1));
      } else {
        k = Math.round(255 * (Math.max(-1, Math.min(1, found / of.limit)) + 1) / 2);
      }
      return [table[3 * k], table[3 * k + 1], table[3 * k + 2]];
    }

    // First pass: which vertex is seen in each pixel, and how bright it is.
    function rasterise(side, box) {
      var own = mesh[side], shape = own.surfaces[state.surface], faces = mesh.faces;
      // box.part: -1 and 1 for the left and right of two, 0 for one alone
      var base = side === "right" ? mesh.left.n : 0;
      var sign = side === "right" ? -1 : 1;
      var ca = Math.cos(state.turn), sa = sign * Math.sin(state.turn);
      var cb = Math.cos(state.tilt), sb = Math.sin(state.tilt), e = shape.extent;
      var across = Math.hypot(e[0] * ca, e[1] * sa);
      var up = Math.hypot(Math.hypot(e[0] * sa, e[1] * ca) * sb, e[2] * cb);
      var zoom = Math.min(0.47 * box.width / across, 0.445 * box.height / up);
      var n = own.n, px = new Float32Array(n), py = new Float32Array(n), pz = new Float32Array(n);
      var shade = new Float32Array(n), p = shape.places, q = shape.normals;
      var mx = width / 2 + box.part * Math.min(width / 4, 1.06 * zoom * across), my = box.height * 0.525;
      for (var k = 0; k < n; k++) {
        var x = p[3 * k], y = p[3 * k + 1], z = p[3 * k + 2], away = -x * sa + y * ca;
        px[k] = mx + zoom * (x * ca + y * sa);
        py[k] = my - zoom * (z * cb + away * sb);
        pz[k] = z * sb - away * cb;
        shade[k] = q[3 * k + 2] * sb - (-q[3 * k] * sa + q[3 * k + 1] * ca) * cb;
      }
      for (var f = 0; f < faces.length; f += 3) {
        var a = faces[f], b = faces[f + 1], c = faces[f + 2];
        var ax = px[a], ay = py[a], bx = px[b], by = py[b], cx = px[c], cy = py[c];
        var area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
        if (area >= 0) { continue; } // seen from inside (pixels count downwards)
        var x0 = Math.max(0, Math.ceil(Math.min(ax, bx, cx))), x1 = Math.min(width - 1, Math.floor(Math.max(ax, bx, cx)));
        var y0 = Math.max(0, Math.ceil(Math.min(ay, by, cy))), y1 = Math.min(height - 1, Math.floor(Math.max(ay, by, cy)));
        for (var row = y0; row <= y1; row++) {
          for (var col = x0; col <= x1; col++) {
            var wa = ((bx - col) * (cy - row) - (by - row) * (cx - col)) / area;
            var wb = ((cx - col) * (ay - row) - (cy - row) * (ax - col)) / area;
            var wc = 1 - wa - wb;
            if (wa < 0 || wb < 0 || wc < 0) { continue; }
            var at = row * width + col, far = wa * pz[a] + wb * pz[b] + wc * pz[c];
            if (far <= depth[at]) { continue; }
            depth[at] = far;
            vertex[at] = base + (wa >= wb && wa >= wc ? a : wb >= wc ? b : c);
            light[at] = 255 * Math.max(0, Math.min(1, wa * shade[a] + wb * shade[b] + wc * shade[c]));
          }
        }
      }
      return mx;
    }

    // Second pass: colours, and lines between what is shown and what is not.
    function paint() {
      var n = mesh.left.n, of = set().of, count = set().names.length;
      var shown = new Uint8Array(count + 1), tone = new Uint8Array(3 * (count + 1)), total = 0, known = 0;
      for (var row = 0; row < count; row++) {
        var found = value(row, state.column);
        known += found !== null;
        if (!isShown(row)) { continue; }
        var rgb = colourOf(found);
        shown[row] = 1; total += 1;
        tone[3 * row] = rgb[0]; tone[3 * row + 1] = rgb[1]; tone[3 * row + 2] = rgb[2];
      }
      var marked = state.kept, out = image.data, rows = new Int32Array(2 * n);
      for (var k = 0; k < n; k++) {
        rows[k] = of.left[k] === NOWHERE ? count : of.left[k];
        rows[n + k] = of.right[k] === NOWHERE ? count : of.right[k];
      }
      var step = Math.max(1, Math.round(width / 900));
      for (var y = 0, at = 0; y < height; y++) {
        for (var x = 0; x < width; x++, at++) {
          var o = 4 * at, v = vertex[at];
          if (v < 0) { out[o + 3] = 0; continue; }
          var mine = rows[v], glow = 0.7 + 0.3 * light[at] / 255, r, g, b;
          if (shown[mine]) {
            r = tone[3 * mine]; g = tone[3 * mine + 1]; b = tone[3 * mine + 2];
          } else {
            r = g = b = (v < n ? mesh.left.sulci[v] : mesh.right.sulci[v - n]) ? SULCUS : GYRUS;
          }
          var other = mine;
          if (x >= step && vertex[at - step] >= 0) { other = rows[vertex[at - step]]; }
          if (other === mine && y >= step && vertex[at - step * width] >= 0) { other = rows[vertex[at - step * width]]; }
          if (other !== mine && (marked === mine || marked === other)) {
            r = 255; g = 196; b = 0; glow = 1;
          } else if (other !== mine && shown[mine] !== shown[other]) { glow *= 0.35; }
          out[o] = r * glow; out[o + 1] = g * glow; out[o + 2] = b * glow; out[o + 3] = 255;
        }
      }
      pen.putImageData(image, 0, 0);
      tell(total, known);
    }
    function draw(coarse) {
      var ratio = coarse ? 1 : Math.max(2, window.devicePixelRatio || 1);
      var box = stage.getBoundingClientRect();
      var w = Math.max(200, Math.round(box.width * ratio)), h = Math.max(100, Math.round(canvas.clientHeight * ratio));
      if (w !== width || h !== height) {
        width = canvas.width = w; height = canvas.height = h;
        image = pen.createImageData(w, h);
        vertex = new Int32Array(w * h); light = new Uint8Array(w * h); depth = new Float32Array(w * h);
      }
      vertex.fill(-1); depth.fill(-1e9);
      var order = state.side !== "both" ? [state.side] : state.swapped ? ["right", "left"] : ["left", "right"];
      order.forEach(function (side, k) {
        var part = order.length < 2 ? 0 : 2 * k - 1;
        var middle = rasterise(side, { part: part, width: w / order.length, height: h });
        names[k].style.left = 100 * middle / w + "%";
      });
      names.forEach(function (name, k) { name.textContent = order[k] || ""; });
      paint();
    }
    var waiting = 0;
    function later(coarse) {
      if (waiting) { cancelAnimationFrame(waiting); }
      waiting = requestAnimationFrame(function () { waiting = 0; draw(coarse); });
    }

    // ---- words -----------------------------------------------------------------------------
    function digits() { return map().steps ? 0 : digitsOf(map().limit); }
    function words(row) {
      var text = written(value(row, state.column), digits()), q = qOf(row, state.column);
      return map().label + " " + text + (q ? ", q = " + written(q.value, 4) : "");
    }
    function tell(total, known) {
      var of = map(), several = of.columns.length > 1;
      title.textContent = of.space + ": " + of.label + (several ? ", " + of.columns[state.column] : "")
        + " · " + total + " of " + known + (state.set ? " regions" : " parcels") + " shown"
        + (set().hidden ? " (" + set().hidden + " more lie off this cortex)" : "")
        + (of.isReduced ? "; its other columns are left out, to keep the page small" : "");
      ticks.textContent = "";
      if (of.steps) {
        var n = of.steps.length, every = Math.ceil(n / 13);
        scale.style.background = "linear-gradient(90deg," + of.steps.map(function (layer, k) {
          return "rgb(" + colourOf(layer) + ") " + 100 * k / n + "% " + 100 * (k + 1) / n + "%";
        }) + ")";
        of.steps.forEach(function (layer, k) {
          if (k % every === 0) { element("span", { style: "left:" + 100 * (k + 0.5) / n + "%" }, ticks, layer); }
        });
      } else {
        var stops = [];
        for (var k = 0; k <= 32; k++) { stops.push("rgb(" + colourOf(of.limit * (k / 16 - 1)) + ")"); }
        scale.style.background = "linear-gradient(90deg," + stops + ")";
        var places = Math.max(1, digits() - 1), half = of.limit / 2 * Math.pow(10, places);
        if (Math.abs(half - Math.round(half)) > 1e-6) { places += 1; }
        [-1, -0.5, 0, 0.5, 1].forEach(function (part) {
          element("span", { style: "left:" + 50 * (part + 1) + "%" }, ticks, written(part * of.limit, places));
        });
      }
      var row = state.kept;
      told.textContent = "";
      if (row < 0) {
        element("p", {}, told, "Click a parcel to keep its values here.");
        return;
      }
      var where = set().places[row];
      var line = element("p", {}, told);
      element("b", {}, line, set().names[row]);
      line.appendChild(document.createTextNode((where ? " (" + where + ")" : "") + ": " + words(row)
        + (several ? " in " + of.columns[state.column] : "")));
      if (several) { profile(row); }
    }
    function svg(name, attributes, parent) {
      var made = document.createElementNS("http://www.w3.org/2000/svg", name);
      Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
      parent.appendChild(made);
      return made;
    }
    function profile(row) {
      var of = map(), n = of.columns.length, values = of.columns.map(function (_, k) { return value(row, k); });
      var known = values.filter(function (v) { return v !== null; });
      var low = Math.min.apply(null, known.concat(0)), high = Math.max.apply(null, known.concat(0));
      var W = Math.max(240, Math.min(560, told.clientWidth)), H = 110, left = 52, right = 8, span = high - low || 1;
      function sx(k) { return left + (W - left - right) * (n < 2 ? 0.5 : k / (n - 1)); }
      function sy(v) { return 8 + (H - 32) * (high - v) / span; }
      var plot = svg("svg", { viewBox: "0 0 " + W + " " + H, role: "img", "class": "profile",
        "aria-label": of.label + " of " + set().names[row] + " by layer or head" }, told);
      svg("line", { x1: left, x2: W - right, y1: sy(0), y2: sy(0), "class": "zero" }, plot);
      svg("line", { x1: sx(state.column), x2: sx(state.column), y1: 4, y2: H - 22, "class": "now" }, plot);
      if (/^layer \d+$/.test(of.columns[0])) {
        svg("polyline", { points: values.map(function (v, k) { return v === null ? "" : sx(k) + "," + sy(v); }).join(" ") }, plot);
      }
      values.forEach(function (v, k) {
        if (v === null) { return; }
        var q = qOf(row, k), dot = svg("circle", { cx: sx(k), cy: sy(v), r: n > 40 ? 2 : 3.5,
          "class": q && q.below ? "below" : "above" }, plot);
        svg("title", {}, dot).textContent = of.columns[k] + ": " + written(v, digits());
      });
      [high, low].forEach(function (v, k) {
        svg("text", { x: left - 6, y: sy(v) + 4, "text-anchor": "end" }, plot).textContent = k && span === 1 && !known.length ? "" : written(v, digits());
      });
      [0, n - 1].forEach(function (k, end) {
        svg("text", { x: sx(k), y: H - 5, "text-anchor": end ? "end" : "start" }, plot).textContent = of.columns[k];
      });
      element("small", {}, told, map().q ? "Filled: q < " + map().q.level + ". The line marks what is shown above." : "The line marks what is shown above.");
    }

    // ---- controls --------------------------------------------------------------------------
    function fillMaps() {
      chooseMap.textContent = "";
      var group = null;
      set().maps.forEach(function (one, k) {
        if (!group || group.label !== one.space) { group = element("optgroup", { label: one.space }, chooseMap); }
        element("option", { value: k }, group, one.space + ": " + one.label);
      });
      find.textContent = "";
      element("option", { value: -1 }, find, state.set ? "a region …" : "a parcel …");
      find.parentNode.hidden = !set().isListed;
      set().names.map(function (name, k) { return [name, k]; }).sort(function (a, b) {
        return a[0].localeCompare(b[0], "en", { numeric: true });
      }).forEach(function (one) { element("option", { value: one[1] }, find, one[0]); });
    }
    function choose(k) {
      state.map = k;
      var of = map();
      state.column = of.best;
      chooseMap.value = k;
      chooseColumn.max = of.columns.length - 1;
      columnBox.hidden = of.columns.length < 2;
      thresholdBox.hidden = Boolean(of.steps);
      significantBox.hidden = !of.q;
      if (of.steps) { chooseThreshold.value = 0; }
      if (!of.q) { chooseSignificant.checked = false; }
      refresh();
    }
    function refresh() {
      var of = map();
      chooseColumn.value = state.column;
      var name = of.columns[state.column];
      columnText.textContent = name.charAt(0).toUpperCase() + name.slice(1)
        + (state.column === of.best ? " (highest mean)" : "");
      state.threshold = of.limit * chooseThreshold.value / 100;
      thresholdText.textContent = state.threshold > 0
        ? "At least " + written(state.threshold, digits()) + " from zero" : "No threshold";
      state.significant = chooseSignificant.checked;
      significantText.textContent = of.q ? "only q < " + of.q.level : "";
      if (image) { paint(); }
    }
    function look(view) {
      state.turn = view[1]; state.tilt = view[2]; state.swapped = view[3];
      draw(false);
    }
    VIEWS.forEach(function (view) {
      element("button", { type: "button" }, buttons, view[0]).addEventListener("click", function () { look(view); });
    });
    chooseSet.addEventListener("change", function () {
      state.set = Number(chooseSet.value); state.kept = -1;
      fillMaps(); choose(0);
    });
    chooseMap.addEventListener("change", function () { choose(Number(chooseMap.value)); });
    chooseColumn.addEventListener("input", function () { state.column = Number(chooseColumn.value); refresh(); });
    chooseThreshold.addEventListener("input", refresh);
    chooseSignificant.addEventListener("change", refresh);
    chooseSurface.addEventListener("change", function () { state.surface = chooseSurface.value; draw(false); });
    chooseSide.addEventListener("change", function () { state.side = chooseSide.value; draw(false); });
    function keep(row) { state.kept = row; find.value = row; paint(); }
    find.addEventListener("change", function () {
      var row = Number(find.value);
      if (row >= 0) { turnTo(row); }
      keep(row);
    });
    function turnTo(row) {
      // Turn so that the middle of the parcel faces the reader.
      var best = null;
      ["left", "right"].forEach(function (side) {
        var of = set().of[side], normals = mesh[side].surfaces.inflated.normals, sum = [0, 0, 0], count = 0;
        for (var k = 0; k < of.length; k++) {
          if (of[k] !== row) { continue; }
          count += 1;
          for (var d = 0; d < 3; d++) { sum[d] += normals[3 * k + d]; }
        }
        if (count && (!best || count > best.count)) { best = { side: side, sum: sum, count: count }; }
      });
      if (!best) { return; }
      var sign = best.side === "right" ? -1 : 1, flat = Math.hypot(best.sum[0], best.sum[1]);
      state.turn = sign * Math.atan2(best.sum[0], -best.sum[1]);
      state.tilt = Math.max(-HALF, Math.min(HALF, Math.atan2(best.sum[2], flat)));
      state.swapped = Math.cos(state.turn) < -0.5;
      if (state.side !== "both") { state.side = chooseSide.value = best.side; }
      draw(false);
    }
    function rowAt(x, y) {
      var box = canvas.getBoundingClientRect();
      var col = Math.floor((x - box.left) / box.width * width), line = Math.floor((y - box.top) / box.height * height);
      if (col < 0 || line < 0 || col >= width || line >= height) { return -1; }
      var v = vertex[line * width + col], n = mesh.left.n;
      if (v < 0) { return -1; }
      var row = v < n ? set().of.left[v] : set().of.right[v - n];
      return row === NOWHERE ? -1 : row;
    }
    var drag = null;
    canvas.addEventListener("pointerdown", function (event) {
      drag = { x: event.clientX, y: event.clientY, turn: state.turn, tilt: state.tilt, moved: false,
        sign: rightAt(event.clientX) ? -1 : 1 };
      canvas.setPointerCapture(event.pointerId);
      tip.hidden = true;
    });
    function rightAt(x) {
      if (state.side !== "both") { return state.side === "right"; }
      var box = canvas.getBoundingClientRect();
      return (x - box.left > box.width / 2) !== state.swapped;
    }
    canvas.addEventListener("pointermove", function (event) {
      if (drag) {
        var dx = event.clientX - drag.x, dy = event.clientY - drag.y;
        if (Math.abs(dx) + Math.abs(dy) > 3) { drag.moved = true; }
        if (!drag.moved) { return; }
        state.turn = drag.turn - drag.sign * dx * 0.008;
        state.tilt = Math.max(-HALF, Math.min(HALF, drag.tilt + dy * 0.008));
        later(true);
        return;
      }
      var row = rowAt(event.clientX, event.clientY), box = stage.getBoundingClientRect();
      tip.hidden = row < 0;
      if (row < 0) { return; }
      tip.textContent = set().names[row] + ": " + words(row);
      var x = event.clientX - box.left;
      tip.style.left = Math.max(0, Math.min(x - tip.offsetWidth / 2, box.width - tip.offsetWidth)) + "px";
      tip.style.top = Math.max(0, event.clientY - box.top - tip.offsetHeight - 14) + "px";
    });
    canvas.addEventListener("pointerup", function (event) {
      var was = drag;
      drag = null;
      if (was && was.moved) { later(false); return; }
      keep(rowAt(event.clientX, event.clientY));
    });
    canvas.addEventListener("pointercancel", function () { drag = null; later(false); });
    canvas.addEventListener("pointerleave", function () { tip.hidden = true; });
    canvas.addEventListener("keydown", function (event) {
      var step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!step) { return; }
      event.preventDefault();
      state.turn += step[0] * Math.PI / 12;
      state.tilt = Math.max(-HALF, Math.min(HALF, state.tilt + step[1] * Math.PI / 12));
      later(false);
    });
    if (window.ResizeObserver) { new ResizeObserver(function () { if (image) { later(false); } }).observe(stage); }
    fillMaps();
    choose(0);
    draw(false);
    root.setAttribute("data-ready", "");
  }

  var roots = Array.prototype.slice.call(document.querySelectorAll(".brainview[data-source]"));
  if (!window.IntersectionObserver) { roots.forEach(start); return; }
  var watch = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) { return; }
      watch.unobserve(entry.target);
      start(entry.target);
    });
  }, { rootMargin: "300px" });
  roots.forEach(function (root) { watch.observe(root); });
}());
