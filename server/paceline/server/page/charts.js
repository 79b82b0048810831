"use strict";
// Draws: lines with uPlot, the rounds on a canvas. It knows nothing of where data come from.

const HEIGHT = 240;

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function lineColor(place, count) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return `hsl(${Math.round((360 * place) / Math.max(count, 1) + 170) % 360} 65% ${dark ? 62 : 42}%)`;
}

function faint(color) {
  return color.replace(")", " / 0.13)");
}

/** A chart in `holder` that is made anew when its lines change, else given new data. */
class Chart {
  constructor(holder, unit) {
    this.holder = holder;
    this.unit = unit;
    this.key = "";
    this.plot = null;
    new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height: HEIGHT })).observe(holder);
  }

  width() {
    return Math.max(this.holder.clientWidth, 200);
  }

  /** lines: [{label, values, low, high}], low and high only where there is a band; x: numbers, ascending. */
  draw(x, lines, { xLabel = "round", top = null } = {}) {
    const key = JSON.stringify([xLabel, lines.map((line) => line.label), css("--ink")]);
    const data = [x];
    for (const line of lines) {
      data.push(line.values);
      if (line.low) data.push(line.high, line.low);
    }
    this.top = top;
    if (key === this.key) {
      this.plot.setData(data);
      return;
    }
    this.key = key;
    this.plot?.destroy();
    this.plot = new uPlot(this.options(lines, xLabel), data, this.holder);
  }

  options(lines, xLabel) {
    const series = [{ label: xLabel }];
    const bands = [];
    lines.forEach((line, place) => {
      const color = lineColor(place, lines.length);
      series.push({ label: line.label, stroke: color, width: 1.6, spanGaps: true, value: (_, v) => brief(v) });
      if (line.low) {
        // The class hides it in the legend.
        const edge = { stroke: "transparent", spanGaps: true, points: { show: false }, class: "edge" };
        bands.push({ series: [series.length, series.length + 1], fill: faint(color) });
        series.push({ ...edge }, { ...edge });
      }
    });
    const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    return {
      width: this.width(),
      height: HEIGHT,
      series,
      bands,
      axes: [axis, { ...axis, size: 62, values: (_, ticks) => ticks.map((v) => brief(v) + this.unit) }],
      scales: {
        x: { time: false },
        y: { range: (_, low, high) => this.range(low, high) },
      },
      legend: { live: true },
      cursor: { drag: { x: true, y: false } },
    };
  }

  range(low, high) {
    if (low == null || high == null) return [0, 1];
    if (this.top != null) return [0, this.top];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low >= 0 && low < high / 3 ? 0 : low - room, high + room];
  }
}

/** Numbers as people read them. */
function brief(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** The latest rounds: a row for each worker, a bar for each round that it had a part in. */
class Timeline {
  constructor(canvas, tip) {
    this.canvas = canvas;
    this.tip = tip;
    this.said = tip.textContent;
    this.boxes = [];
    canvas.addEventListener("mousemove", (event) => this.tell(event.offsetX, event.offsetY));
    canvas.addEventListener("mouseleave", () => { tip.textContent = this.said; });
  }

  /** rounds: [{round, opened, seconds, bars: Map of name to [used, wasted, idle]}], ascending. */
  draw(names, rounds) {
    const { canvas } = this;
    const row = names.length <= 16 ? 22 : names.length <= 60 ? 12 : names.length <= 150 ? 6 : 2;
    const left = names.length <= 60 ? Math.min(150, 12 + 7.5 * Math.max(4, ...names.map((name) => name.length))) : 44;
    const width = Math.max(canvas.parentElement.clientWidth, 320);
    const height = row * names.length + 24;
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `${row > 8 ? 12 : 10}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    this.boxes = [];
    this.names(pen, names, row, left);
    if (!rounds.length) return;
    const begin = rounds[0].opened;
    const last = rounds[rounds.length - 1];
    const perSecond = (width - left - 4) / Math.max(last.opened + last.seconds - begin, 1e-9);
    const places = new Map(names.map((name, place) => [name, place]));
    let labelled = -Infinity;
    for (const round of rounds) {
      const x = left + (round.opened - begin) * perSecond;
      const wide = round.seconds * perSecond;
      pen.fillStyle = css("--line");
      pen.fillRect(x, 0, 1, row * names.length);
      if (x - labelled > 34) {
        pen.fillStyle = css("--quiet");
        pen.fillText(String(round.round), x + 2, row * names.length + 12);
        labelled = x;
      }
      for (const [name, bar] of round.bars) {
        const place = places.get(name);
        if (place !== undefined) this.bar(pen, { x, y: place * row, wide, row, round, name, bar });
      }
    }
  }

  names(pen, names, row, left) {
    pen.fillStyle = css("--quiet");
    const every = Math.ceil(14 / row);
    names.forEach((name, place) => {
      if (place % every === 0) pen.fillText(name, 0, place * row + row / 2, left - 6);
    });
  }

  bar(pen, { x, y, wide, row, round, name, bar }) {
    const [used, wasted, idle] = bar.map((seconds) => seconds || 0);
    const known = used + wasted + idle;
    const whole = Math.max(round.seconds, known, 1e-12);
    const parts = [
      ["--transferring", whole - known],
      ["--computing", used],
      ["--wasted", wasted],
      ["--waiting", idle],
    ];
    const gap = row > 8 ? 3 : row > 2 ? 1 : 0;
    let at = x + 1;
    for (const [color, seconds] of parts) {
      const length = (Math.max(wide - 1, 0.5) * seconds) / whole;
      if (length <= 0) continue;
      pen.fillStyle = css(color);
      pen.fillRect(at, y + gap / 2, length, row - gap);
      at += length;
    }
    this.boxes.push({ x, y, wide, row, text: `round ${round.round}, ${brief(round.seconds)} s: ${name} computed ${brief(used)} s, `
      + `${brief(wasted)} s of it wasted besides, waited ${brief(idle)} s` });
  }

  tell(x, y) {
    const box = this.boxes.find((b) => x >= b.x && x < b.x + b.wide && y >= b.y && y < b.y + b.row);
    this.tip.textContent = box ? box.text : this.said;
  }
}
