"use strict";
(function () {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("report-data").textContent);
  // Buttons are listed, so that none of plotly's own can ask for anything outside of this file.
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg" },
  };
  const mapConfig = Object.assign({}, config, {
    scrollZoom: true, displayModeBar: true,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  });
  const hasWebgl = (function () {
    try {
      const context = document.createElement("canvas").getContext("webgl");
      if (!context) return false;
      const lose = context.getExtension("WEBGL_lose_context");
      if (lose) lose.loseContext();
      return true;
    } catch (error) { return false; }
  })();

  // Texts go into plotly, which reads tags and entities in them.
  function plotlyText(text) {
    return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function unpack(array) {
    const text = atob(array.bytes), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const kinds = { "<f4": Float32Array, "<f8": Float64Array, "<i2": Int16Array, "<i4": Int32Array };
    return new kinds[array.dtype](bytes.buffer);
  }

  // Charts are drawn when they come near the window, the others one by one while nothing else is to be done.
  const waiting = new Map();
  const idle = window.requestIdleCallback || function (work) { setTimeout(work, 30); };
  const near = new IntersectionObserver(function (entries) {
    for (const entry of entries) if (entry.isIntersecting) drawNow(entry.target);
  }, { rootMargin: "600px" });

  function drawNow(element) {
    const draw = waiting.get(element);
    near.unobserve(element);
    waiting.delete(element);
    if (draw) draw();
  }

  function drawNext() {
    const next = waiting.keys().next();
    if (next.done) return;
    drawNow(next.value);
    idle(drawNext);
  }

  function drawLater(element, draw) {
    waiting.set(element, draw);
    near.observe(element);
  }

  // Browsers allow about 16 WebGL contexts on a page; a t-SNE takes some, and gives them back when it is far away.
  function drawWhileNear(element, draw) {
    new IntersectionObserver(function (entries) {
      const entry = entries[entries.length - 1];
      if (entry.isIntersecting) draw();
      else if (element.dataset.drawn) { Plotly.purge(element); delete element.dataset.drawn; }
    }, { rootMargin: "600px" }).observe(element);
  }

  function drawChart(element) {
    const figure = data.charts[element.dataset.chart];
    Plotly.newPlot(element, figure.data, figure.layout, config).then(function () {
      element.dataset.drawn = "true";
      const group = element.closest("[data-group]");
      if (group) applyLegend(group.dataset.group);
    });
  }

  function hiddenLabels(group) {
    const hidden = new Set();
    document.querySelectorAll('.legend[data-group="' + group + '"] button').forEach(function (button) {
      if (button.getAttribute("aria-pressed") === "false") hidden.add(button.dataset.label);
    });
    return hidden;
  }

  function applyLegend(group) {
    const hidden = hiddenLabels(group);
    document.querySelectorAll('.charts[data-group="' + group + '"] .plot[data-drawn]').forEach(function (plot) {
      const visible = plot.data.map(function (trace) {
        const labels = trace.meta ? trace.meta.labels || [trace.meta.label] : [];
        return !labels.length || labels.some((label) => !hidden.has(label));
      });
      Plotly.restyle(plot, { visible: visible });
    });
  }

  document.querySelectorAll(".legend[data-group] button").forEach(function (button) {
    button.addEventListener("click", function () {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
      applyLegend(button.closest(".legend").dataset.group);
    });
  });

  // --- t-SNE

  // Cividis: even steps, for every kind of eye.
  const ramp = [[0, "#00224e"], [0.25, "#414d6b"], [0.5, "#7d7c78"], [0.75, "#bcaf6f"], [1, "#fee838"]];

  function Explorer(element) {
    const payload = data.embeddings[element.dataset.embedding];
    const find = (role) => element.querySelector('[data-role="' + role + '"]');
    const neurons = {};
    for (const name of ["x", "y", "unit", "session", "cluster", "stability", "confidence", "type"]) {
      if (payload[name]) neurons[name] = unpack(payload[name]);
    }
    const n = neurons.x.length, plot = element.querySelector(".plot");
    const kind = hasWebgl ? "scattergl" : "scatter";
    const size = Math.max(3, Math.min(8, 260 / Math.sqrt(n)));

    function checked(role) {
      return new Set(Array.from(find(role).querySelectorAll("input:checked"), (input) => Number(input.value)));
    }

    // "17" is unit 17 of any session, "name/17" of those whose names contain the word.
    function matcher() {
      const text = find("search").value.trim();
      if (!text) return null;
      const at = text.lastIndexOf("/");
      const name = at < 0 ? "" : text.slice(0, at).trim().toLowerCase();
      const unit = (at < 0 ? text : text.slice(at + 1)).trim();
      return function (i) {
        return (unit === "" || String(neurons.unit[i]) === unit)
          && (name === "" || payload.sessions[neurons.session[i]].toLowerCase().includes(name));
      };
    }

    function selected() {
      const sessions = checked("sessions"), clusters = checked("clusters"), all = find("clusters").querySelectorAll("input").length;
      const range = find("stability"), least = range ? Number(range.value) : 0, rows = [];
      for (let i = 0; i < n; i++) {
        if (!sessions.has(neurons.session[i])) continue;
        if (!(clusters.has(neurons.cluster[i]) || (neurons.cluster[i] < 0 && clusters.size === all))) continue;
        if (least > 0 && !(neurons.stability[i] >= least - 1e-6)) continue;
        rows.push(i);
      }
      return rows;
    }

    function describe(i) {
      const parts = ["session " + payload.sessions[neurons.session[i]], "unit " + neurons.unit[i],
        neurons.cluster[i] < 0 ? "no consensus cluster" : "cluster " + neurons.cluster[i]];
      if (neurons.type) parts.push(neurons.type[i] < 0 ? "no known type" : "type " + payload.types[neurons.type[i]]);
      if (neurons.stability && neurons.stability[i] >= 0) parts.push("stability " + neurons.stability[i].toFixed(2));
      if (neurons.confidence && neurons.confidence[i] >= 0) parts.push("confidence " + neurons.confidence[i].toFixed(2));
      return parts;
    }

    function groups(color) {
      if (color === "cluster") return { codes: neurons.cluster, colors: payload.colors, names: payload.colors.map((_, i) => "cluster " + i) };
      if (color === "session") return { codes: neurons.session, colors: payload.sessionColors, names: payload.sessions };
      return { codes: neurons.type, colors: payload.typeColors, names: payload.types };
    }

    function trace(rows, marker, name) {
      return {
        type: kind, mode: "markers", name: plotlyText(name), marker: marker, hoverinfo: "text",
        x: rows.map((i) => neurons.x[i]), y: rows.map((i) => neurons.y[i]),
        text: rows.map((i) => describe(i).map(plotlyText).join("<br>")), customdata: rows,
      };
    }

    function traces(rows, color) {
      if (color === "stability" || color === "confidence") {
        // The colours are explained below the map: a bar inside of it would take room from the cloud, which then jumps.
        const marker = {
          size: size, color: rows.map((i) => neurons[color][i]), cmin: 0, cmax: 1, colorscale: ramp, showscale: false,
        };
        return [trace(rows, marker, color)];
      }
      const group = groups(color), members = group.colors.map(() => []), others = [];
      for (const i of rows) (group.codes[i] < 0 ? others : members[group.codes[i]]).push(i);
      const found = [];
      if (others.length) found.push(trace(others, { size: size, color: "#C9C9C9" }, "none"));
      members.forEach(function (indices, code) {
        if (indices.length) found.push(trace(indices, { size: size, color: group.colors[code], opacity: 0.85 }, group.names[code]));
      });
      return found;
    }

    function showLegend(rows, color) {
      const list = find("legend");
      list.replaceChildren();
      if (color === "stability" || color === "confidence") {
        const item = document.createElement("li"), colors = document.createElement("span");
        item.className = "ramp";
        colors.className = "colors";
        colors.style.background = "linear-gradient(to right, " + ramp.map((stop) => stop[1]).join(", ") + ")";
        item.append(color + " 0", colors, "1");
        list.append(item);
        return;
      }
      const group = groups(color), counts = new Map();
      for (const i of rows) counts.set(group.codes[i], (counts.get(group.codes[i]) || 0) + 1);
      const codes = Array.from(counts.keys()).sort((a, b) => a - b);
      for (const code of codes) {
        const item = document.createElement("li"), dot = document.createElement("span");
        dot.className = "dot";
        dot.style.background = code < 0 ? "#C9C9C9" : group.colors[code];
        item.append(dot, (code < 0 ? "none" : group.names[code]) + " (" + counts.get(code).toLocaleString("en") + ")");
        list.append(item);
      }
    }

    function showFound(rows) {
      const box = find("found");
      box.hidden = !rows.length;
      box.replaceChildren();
      if (!rows.length) return;
      const list = document.createElement("ul");
      for (const i of rows.slice(0, 50)) {
        const item = document.createElement("li");
        item.textContent = describe(i).join(", ");
        list.append(item);
      }
      box.append(list);
    }

    const bounds = ["x", "y"].map(function (name) {
      let low = Infinity, high = -Infinity;
      for (const value of neurons[name]) { if (value < low) low = value; if (value > high) high = value; }
      const pad = 0.04 * (high - low) || 1;
      return [low - pad, high + pad];
    });
    const hiddenAxis = (range) => ({ range: range, visible: false });

    function draw() {
      const color = find("color").value, rows = selected(), matches = matcher();
      const drawn = traces(rows, color), found = matches ? rows.filter(matches) : [];
      if (matches) for (const each of drawn) each.marker.opacity = 0.25;
      if (found.length) {
        drawn.push(trace(found, { size: size + 8, color: "rgba(0,0,0,0)", line: { color: "#000000", width: 2.5 }, symbol: "circle-open" }, "found"));
      }
      const layout = {
        xaxis: hiddenAxis(bounds[0].slice()), yaxis: Object.assign(hiddenAxis(bounds[1].slice()), { scaleanchor: "x" }), showlegend: false,
        margin: { l: 4, r: 4, t: 34, b: 4 }, hovermode: "closest", dragmode: "pan", uirevision: "same",
        paper_bgcolor: "white", plot_bgcolor: "white", font: { family: "system-ui, sans-serif", size: 13, color: "#333333" },
        hoverlabel: { bgcolor: "white", font: { color: "#111111", size: 13 }, bordercolor: "#333333", align: "left" },
      };
      const output = find("stability-value");
      if (output) output.textContent = Number(find("stability").value).toFixed(2);
      let words = rows.length.toLocaleString("en") + " of " + n.toLocaleString("en") + " drawn neurons are shown";
      if (matches) words += "; " + (found.length ? found.length.toLocaleString("en") + " found" : "none of them is found");
      find("status").textContent = words + ".";
      showLegend(rows, color);
      showFound(found);
      return Plotly.react(plot, drawn, layout, mapConfig).then(function () { plot.dataset.drawn = "true"; });
    }

    const form = element.querySelector("form");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", draw);
    form.addEventListener("reset", () => setTimeout(draw, 0));
    for (const [name, value] of [["all", true], ["none", false]]) {
      form.querySelectorAll("[data-" + name + "]").forEach(function (button) {
        button.addEventListener("click", function () {
          find(button.dataset[name]).querySelectorAll("input").forEach((input) => { input.checked = value; });
          draw();
        });
      });
    }
    if (Object.keys(data.embeddings).length > 3) drawWhileNear(plot, draw); else drawLater(plot, draw);
  }

  // --- the menu: where the reader is

  const links = Array.from(document.querySelectorAll("nav a"), (link) => ({ link: link, target: document.getElementById(link.hash.slice(1)) }))
    .filter((each) => each.target);
  let asked = false;

  function markPlace() {
    asked = false;
    const line = document.querySelector("nav").getBoundingClientRect().bottom + 40;
    const atEnd = window.innerHeight + window.scrollY >= root.scrollHeight - 2;
    let current = null;
    for (const each of links) {
      const top = each.target.getBoundingClientRect().top;
      // Of several that begin above the line, the one that begins last; of those at one height, the inner one.
      if ((top <= line || atEnd) && (!current || top >= current.top)) current = { target: each.target, top: top };
    }
    const article = current && current.target.closest("article");
    for (const each of links) {
      const here = current && (each.target === current.target || each.target === article);
      if (here && each.link.getAttribute("aria-current") !== "true") {
        each.link.setAttribute("aria-current", "true");
        const list = each.link.closest("ul");
        list.scrollLeft += each.link.getBoundingClientRect().left - list.getBoundingClientRect().left - 60;
      } else if (!here) each.link.removeAttribute("aria-current");
    }
    document.querySelectorAll("nav .sections").forEach(function (list) {
      list.hidden = !article || list.dataset.of !== article.id;
    });
  }

  function askPlace() {
    if (!asked) { asked = true; requestAnimationFrame(markPlace); }
  }

  // --- tables that are wider than the page say so

  function markWide() {
    document.querySelectorAll("details[open] > .scroll").forEach(function (box) {
      box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
    });
  }

  window.addEventListener("scroll", askPlace, { passive: true });
  window.addEventListener("resize", function () { askPlace(); markWide(); });
  document.addEventListener("toggle", markWide, true);
  askPlace();
  markWide();

  root.classList.add("scripted");
  document.querySelectorAll(".plot[data-chart]").forEach((element) => drawLater(element, () => drawChart(element)));
  document.querySelectorAll(".explorer").forEach((element) => Explorer(element));

  idle(drawNext);

  // On paper nothing can be unfolded.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open])").forEach(function (element) { element.open = true; element.dataset.wasClosed = "true"; });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details[data-was-closed]").forEach(function (element) { element.open = false; delete element.dataset.wasClosed; });
  });
})();
