// Draws what a page lets its reader touch: every element .gsae-explorer, from the JSON that it holds.
// Plain SVG and form controls, so that keyboard, screen reader, dark mode and a phone's width need no other script.
(() => {
  "use strict";
  const SIZE = { width: 480, height: 300, left: 52, right: 12, top: 12, bottom: 44 };
  const MARKS = ["circle", "triangle", "square", "diamond"];

  const svg = (tag, attributes, parent, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  const html = (tag, attributes, parent, text) => {
    const element = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // A labelled range; shown(value) is its text, changed(value) is called when it moves.
  const slider = (parent, name, range, shown, changed) => {
    const label = html("label", { class: "gsae-control" }, parent);
    html("span", {}, label, name);
    const input = html("input", { type: "range", min: range.min, max: range.max, step: range.step }, label);
    const value = html("span", { class: "gsae-value" }, label);
    const tell = () => {
      value.textContent = shown(Number(input.value));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.value = range.value;
    tell();
    input.addEventListener("input", () => {
      tell();
      changed(Number(input.value));
    });
    return { input, set: (to) => { input.value = to; tell(); } };
  };

  // Axes with ticks and labels; the functions from numbers to places.
  const axes = (root, x, y, square) => {
    const height = square ? SIZE.width : SIZE.height;
    const picture = svg("svg", { viewBox: `0 0 ${SIZE.width} ${height}`, role: "img", class: "gsae-picture" }, root);
    const right = SIZE.width - SIZE.right;
    const bottom = height - SIZE.bottom;
    const across = (value) => SIZE.left + ((value - x.range[0]) / (x.range[1] - x.range[0])) * (right - SIZE.left);
    const up = (value) => bottom - ((value - y.range[0]) / (y.range[1] - y.range[0])) * (bottom - SIZE.top);
    const frame = { x: SIZE.left, y: SIZE.top, width: right - SIZE.left, height: bottom - SIZE.top };
    svg("rect", { ...frame, class: "gsae-frame" }, picture);
    x.ticks.forEach((tick) => {
      svg("line", { x1: across(tick), x2: across(tick), y1: bottom, y2: bottom + 4, class: "gsae-axis" }, picture);
      svg("text", { x: across(tick), y: bottom + 17, "text-anchor": "middle" }, picture, String(tick));
    });
    y.ticks.forEach((tick) => {
      svg("line", { x1: SIZE.left - 4, x2: SIZE.left, y1: up(tick), y2: up(tick), class: "gsae-axis" }, picture);
      svg("text", { x: SIZE.left - 7, y: up(tick) + 4, "text-anchor": "end" }, picture, String(tick));
    });
    const middle = (SIZE.top + bottom) / 2;
    svg("text", { x: (SIZE.left + right) / 2, y: height - 8, "text-anchor": "middle" }, picture, x.label);
    const turned = { x: 0, y: 0, "text-anchor": "middle", transform: `translate(13 ${middle}) rotate(-90)` };
    svg("text", turned, picture, y.label);
    return { picture, across, up, layer: svg("g", {}, picture) };
  };

  const mark = (parent, kind, x, y) => {
    const shape = MARKS[kind % MARKS.length];
    const attributes = { class: `gsae-mark gsae-color-${kind}` };
    const size = 3.5;
    if (shape === "circle") svg("circle", { ...attributes, cx: x, cy: y, r: size }, parent);
    else {
      const around = { triangle: [-90, 30, 150], square: [-45, 45, 135, 225], diamond: [-90, 0, 90, 180] }[shape];
      const corners = around.map((angle) => (angle * Math.PI) / 180)
        .map((angle) => `${x + 1.25 * size * Math.cos(angle)},${y + 1.25 * size * Math.sin(angle)}`);
      svg("polygon", { ...attributes, points: corners.join(" ") }, parent);
    }
  };

  const legend = (root, names) => {
    const list = html("ul", { class: "gsae-legend" }, root);
    names.forEach((name, kind) => {
      const item = html("li", {}, list);
      const key = svg("svg", { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" }, item);
      mark(key, kind, 6, 6);
      item.append(` ${name}`);
    });
  };

  const line = (xs, ys, place) => xs.map((x, i) => `${place.across(x)},${place.up(ys[i])}`).join(" ");
  const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0(\.0+)?)$/, "$1");

  // A point of the plane, and where the group ReLU and the soft threshold move it.
  const groupRelu = (x, threshold) => {
    const norm = Math.hypot(...x);
    const scale = norm > threshold ? 1 - threshold / norm : 0;
    return x.map((value) => scale * value);
  };
  const softThreshold = (x, threshold) =>
    x.map((value) => Math.sign(value) * Math.max(Math.abs(value) - threshold, 0));

  const plane = (root, data, controls, tell) => {
    const state = { x: [...data.point], threshold: data.threshold };
    const reach = data.reach;
    const axis = (label) => ({ label, range: [-reach, reach], ticks: data.ticks });
    const place = axes(root, axis("first entry"), axis("second entry"), true);
    legend(root, ["group ReLU of the point", "each entry by itself"]);
    const draw = () => {
      place.layer.replaceChildren();
      const { across, up, layer } = place;
      const [x, threshold] = [state.x, state.threshold];
      const radius = across(threshold) - across(0);
      svg("circle", { cx: across(0), cy: up(0), r: radius, class: "gsae-edge gsae-color-0" }, layer);
      const corner = { x: across(-threshold), y: up(threshold), width: 2 * radius, height: 2 * radius };
      svg("rect", { ...corner, class: "gsae-edge gsae-color-1" }, layer);
      const images = [groupRelu(x, threshold), softThreshold(x, threshold)];
      images.forEach((image, kind) => {
        const ends = { x1: across(x[0]), y1: up(x[1]), x2: across(image[0]), y2: up(image[1]) };
        svg("line", { ...ends, class: `gsae-line gsae-color-${kind}` }, layer);
        mark(layer, kind, across(image[0]), up(image[1]));
      });
      svg("circle", { cx: across(x[0]), cy: up(x[1]), r: 7, class: "gsae-handle" }, layer);
      const pair = (values) => `(${values.map((value) => fixed(value, 2)).join(", ")})`;
      const turn = (image) => {
        const product = Math.hypot(...image) * Math.hypot(...x);
        if (!product) return "zero: inactive";
        const cosine = (image[0] * x[0] + image[1] * x[1]) / product;
        return `${pair(image)}, turned by ${fixed((Math.acos(Math.min(1, cosine)) * 180) / Math.PI, 0)} degrees`;
      };
      tell(`Point ${pair(x)}, norm ${fixed(Math.hypot(...x), 2)}. Group ReLU: ${turn(images[0])}. ` +
        `Each entry by itself: ${turn(images[1])}.`);
    };
    const range = (value) => ({ min: -reach, max: reach, step: 0.05, value });
    const entry = (k, name) => slider(controls, name, range(state.x[k]), (v) => fixed(v, 2), (v) => {
      state.x[k] = v;
      draw();
    });
    const entries = [entry(0, "first entry"), entry(1, "second entry")];
    const above = { min: 0.05, max: reach, step: 0.05, value: state.threshold };
    slider(controls, "threshold", above, (v) => fixed(v, 2), (v) => {
      state.threshold = v;
      draw();
    });
    const drag = (event) => {
      const box = place.picture.getBoundingClientRect();
      const scale = SIZE.width / box.width;
      const inner = SIZE.width - SIZE.left - SIZE.right;
      const tall = SIZE.width - SIZE.top - SIZE.bottom;
      const x = (((event.clientX - box.left) * scale - SIZE.left) / inner) * 2 * reach - reach;
      const y = reach - (((event.clientY - box.top) * scale - SIZE.top) / tall) * 2 * reach;
      state.x = [x, y].map((value) => Math.round(20 * Math.max(-reach, Math.min(reach, value))) / 20);
      entries.forEach((one, k) => one.set(state.x[k]));
      draw();
    };
    place.picture.classList.add("gsae-drag");
    place.picture.addEventListener("pointerdown", (event) => {
      place.picture.setPointerCapture(event.pointerId);
      drag(event);
    });
    place.picture.addEventListener("pointermove", (event) => {
      if (place.picture.hasPointerCapture(event.pointerId)) drag(event);
    });
    draw();
  };

  // Curves over x for each choice of the settings, and a line that reads them off.
  const curves = (root, data, controls, tell) => {
    const chosen = data.settings.map((setting) => setting.start);
    const state = { at: data.at };
    const place = axes(root, data.x, data.y);
    legend(root, data.curves.map((curve) => curve.name));
    const picked = (values) => chosen.reduce((inner, index) => inner[index], values);
    const draw = () => {
      place.layer.replaceChildren();
      const { across, up, layer } = place;
      const x = data.x.values[state.at];
      svg("line", { x1: across(x), x2: across(x), y1: up(data.y.range[0]), y2: up(data.y.range[1]), class: "gsae-axis" }, layer);
      const read = data.curves.map((curve, kind) => {
        const values = picked(curve.values);
        if (curve.dots) values.forEach((value, i) => mark(layer, kind, across(data.x.values[i]), up(value)));
        else svg("polyline", { points: line(data.x.values, values, place), class: `gsae-line gsae-color-${kind}` }, layer);
        return `${curve.name} ${fixed(values[state.at], 3)}`;
      });
      tell(`At ${data.x.short} ${fixed(x, 2)}: ${read.join(", ")}.`);
    };
    data.settings.forEach((setting, k) => {
      const range = { min: 0, max: setting.options.length - 1, step: 1, value: chosen[k] };
      slider(controls, setting.name, range, (v) => setting.options[v], (v) => {
        chosen[k] = v;
        draw();
      });
    });
    const along = { min: 0, max: data.x.values.length - 1, step: 1, value: state.at };
    slider(controls, data.x.short, along, (v) => fixed(data.x.values[v], 2), (v) => {
      state.at = v;
      draw();
    });
    draw();
  };

  // Dots that move from picture to picture.
  const frames = (root, data, controls, tell) => {
    const place = axes(root, data.x, data.y);
    legend(root, data.kinds);
    const draw = (index) => {
      place.layer.replaceChildren();
      data.frames[index].points.forEach(([x, y, kind]) => mark(place.layer, kind, place.across(x), place.up(y)));
      tell(data.frames[index].note);
    };
    const last = data.frames.length - 1;
    const range = { min: 0, max: last, step: 1, value: 0 };
    const moved = slider(controls, data.name, range, (v) => data.frames[v].name, draw);
    const button = html("button", { type: "button", class: "gsae-play" }, controls, "Play");
    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
    };
    button.addEventListener("click", () => {
      if (timer) return stop();
      let index = Number(moved.input.value) === last ? -1 : Number(moved.input.value);
      button.textContent = "Stop";
      const step = () => {
        index += 1;
        moved.set(index);
        draw(index);
        if (index === last) stop();
      };
      timer = setInterval(step, data.pause);
      return step();
    });
    moved.input.addEventListener("input", stop);
    draw(0);
  };

  const kinds = { plane, curves, frames };
  const mount = (root) => {
    if (root.dataset.drawn) return;
    root.dataset.drawn = "yes";
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const controls = html("div", { class: "gsae-controls" });
    const told = html("output", { class: "gsae-told", "aria-live": "polite" });
    const tell = (text) => {
      told.textContent = text;
      root.querySelector(".gsae-picture").setAttribute("aria-label", text);
    };
    kinds[root.dataset.kind](root, data, controls, tell);
    root.append(controls, told);
  };
  const mountAll = () => document.querySelectorAll(".gsae-explorer").forEach(mount);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mountAll);
  mountAll();
})();
