"use strict";
// Fetches what is new of a run and shows it; or shows the runs of a report, which lie in the page itself.

const LIMIT_BYTES_PER_S = 2500; // 150 KB a minute, however many workers
const MOST_ROUNDS = 40;
const MOST_BANDS = 8; // more of them hide each other

const at = (id) => document.getElementById(id);
const charts = {
  learned: new Chart(at("learned"), " s"),
  loss: new Chart(at("loss"), ""),
  metrics: new Chart(at("metrics"), ""),
  compared: new Chart(at("compared"), ""),
};
const timeline = new Timeline(at("timeline"), at("tip"));

/** What a page has of one run: it grows by what documents bring. */
class Run {
  constructor() {
    this.cursor = "";
    this.curve = {};
    this.learned = { workers: [], mean_s: [], radius_s: [] };
    this.measured = { round: [], metrics: {} };
    this.rounds = [];
  }

  take(document) {
    this.cursor = document.cursor;
    this.run = document.run;
    this.now = document.now;
    this.workers = document.workers;
    this.ways = document.ways;
    const { since } = document.curve;
    for (const name of ["round", "loss", "seconds"]) {
      this.curve[name] = (this.curve[name] || []).slice(0, since).concat(document.curve[name]);
    }
    for (const name of ["mean_s", "radius_s"]) {
      this.learned[name] = document.learned[name].map((line, place) =>
        (since ? this.learned[name][place].slice(0, since) : []).concat(line));
    }
    this.learned.workers = document.learned.workers;
    this.takeMeasured(document.measured);
    this.takeRounds(document.timeline);
  }

  takeMeasured({ since, round, metrics }) {
    const before = this.measured;
    this.measured = { round: before.round.slice(0, since).concat(round), metrics: {} };
    for (const [name, values] of Object.entries(metrics)) {
      const known = (before.metrics[name] || []).slice(0, since);
      while (known.length < since) known.push(null);
      this.measured.metrics[name] = known.concat(values);
    }
  }

  takeRounds({ workers, rounds }) {
    const known = this.rounds.length ? this.rounds[this.rounds.length - 1].round : 0;
    // Rounds that were missed would be a gap in time.
    if (rounds.length && rounds[0][0] !== known + 1) this.rounds = [];
    for (const [round, opened, seconds, flat] of rounds) {
      const bars = new Map();
      for (let i = 0; i < flat.length; i += 4) bars.set(workers[flat[i]], flat.slice(i + 1, i + 4));
      this.rounds.push({ round, opened, seconds, bars });
    }
    this.rounds = this.rounds.slice(-MOST_ROUNDS);
  }
}

// ---- showing ------------------------------------------------------------------------------------------------------

function show(run) {
  const { now } = run;
  document.title = `${now.version} rounds · ${run.run.job.split(":").pop()} · paceline`;
  at("job").textContent = run.run.job;
  at("policy").textContent = run.run.policy;
  at("state").textContent = now.state;
  at("state").className = `chip ${now.state}`;
  at("progress").hidden = !now.rounds;
  at("progress").value = now.rounds ? now.version / now.rounds : 0;
  at("decision").textContent = [now.situation, now.decision && `last decision: ${now.decision}`].filter(Boolean).join(" — ");
  at("dir").textContent = run.run.dir;
  showTiles(run);
  showRounds(run);
  const { learned, curve, measured } = run;
  const settled = learned.mean_s.flatMap((line) => line.slice(-Math.ceil(line.length * 0.75))).filter(Number.isFinite);
  charts.learned.draw(curve.round, learned.workers.map((label, place) => {
    const means = learned.mean_s[place];
    if (learned.workers.length > MOST_BANDS) return { label, values: means };
    const radii = learned.radius_s[place];
    const edge = (sign) => means.map((mean, i) => (mean == null ? null : Math.max(0, mean + sign * radii[i])));
    return { label, values: means, high: edge(1), low: edge(-1) };
  }), { top: settled.length ? 1.8 * Math.max(...settled) : null });
  charts.loss.draw(curve.round, [{ label: "mean loss", values: curve.loss }]);
  at("evaluation").hidden = !measured.round.length;
  if (measured.round.length) {
    const lines = Object.entries(measured.metrics).map(([label, values]) => ({ label, values }));
    charts.metrics.draw(measured.round, lines);
  }
  showWays(run);
  showWorkers(run);
}

function showTiles({ run, now, ways }) {
  const busy = now.used_s + now.wasted_s;
  const tiles = [
    ["round", now.rounds ? `${now.version} / ${now.rounds}` : String(now.version), `${brief(now.round_s)} s the last`],
    ["time", span(now.training_s), `${run.tasks} tasks a round, ${run.micro_batch} samples each`],
    ["loss", brief(now.loss), ""],
    ...Object.entries({ ...now.means, ...now.metrics }).map(([name, value]) => [name, brief(value), ""]),
    ["worker seconds", brief(busy), `${share(now.wasted_s, busy)} wasted, ${brief(now.idle_s)} s waiting`],
  ];
  if (now.cost != null) tiles.push(["cost", brief(now.cost), "of computing, at the prices given"]);
  const uniform = ways.find((way) => way.name === "uniform");
  if (uniform && now.training_s) {
    tiles.push(["uniform would take", span(uniform.seconds), `${brief(uniform.worker_s)} worker seconds, estimated`]);
  }
  if (now.checkpoint) {
    const age = now.checkpoint_age_s == null ? "" : `${span(now.checkpoint_age_s)} ago`;
    tiles.push(["checkpoint", String(now.checkpoint), age]);
  }
  if (now.rejected) tiles.push(["refused contributions", String(now.rejected), ""]);
  at("tiles").replaceChildren(...tiles.map(([name, value, more]) => {
    const tile = element("div", "", element("dt", name), element("dd", value));
    if (more) tile.lastChild.append(element("small", more));
    return tile;
  }));
}

function showRounds(run) {
  const present = new Set(run.rounds.flatMap((round) => [...round.bars.keys()]));
  const names = run.workers.map((worker) => worker.name).filter((name) => present.has(name));
  timeline.draw(names.length ? names : [...present], run.rounds);
}

function showWays({ run, now, ways }) {
  const priced = now.cost != null;
  const head = ["", "seconds", "worker seconds", ...(priced ? ["cost"] : [])];
  const own = { name: `${run.policy}, this run`, seconds: now.rounds_s, worker_s: now.used_s + now.wasted_s, cost: now.cost };
  const told = { oracle: "oracle: best fixed shares", uniform: "uniform: equal shares", greedy: "greedy: the first results count" };
  fill(at("ways"), head, [own, ...ways].map((way, place) => ({
    kind: place ? "" : "own",
    cells: [told[way.name] || way.name, brief(way.seconds), brief(way.worker_s), ...(priced ? [brief(way.cost)] : [])],
  })));
}

function showWorkers({ workers, now }) {
  const most = Math.max(1, ...workers.map((worker) => worker.tasks));
  const priced = now.cost != null;
  const head = ["worker", "state", "tasks now", "", "s/task", "± radius", "used", "wasted", "computed s", "waited s", ...(priced ? ["cost"] : []), "device"];
  fill(at("workers"), head, workers.map((worker) => {
    const bar = element("progress");
    bar.max = most;
    bar.value = worker.tasks;
    const computed = worker.used_s == null ? null : worker.used_s + worker.wasted_s;
    return {
      kind: ["lost", "left", "away"].includes(worker.state) ? "gone" : "",
      title: worker.note || "",
      cells: [worker.name, worker.note ? `${worker.state} *` : worker.state, String(worker.tasks), bar, brief(worker.mean_s),
        brief(worker.radius_s), brief(worker.used), brief(worker.wasted), brief(computed), brief(worker.idle_s),
        ...(priced ? [brief(worker.cost)] : []), worker.device],
    };
  }));
}

function fill(table, head, rows) {
  const made = rows.map(({ cells, kind, title }) => {
    const row = element("tr", "", ...cells.map((cell) => element("td", cell)));
    row.className = kind;
    if (title) row.title = title;
    return row;
  });
  table.replaceChildren(element("thead", "", element("tr", "", ...head.map((name) => element("th", name)))), element("tbody", "", ...made));
}

function element(kind, content = "", ...children) {
  const made = document.createElement(kind);
  if (content instanceof Node) made.append(content);
  else made.textContent = content ?? "";
  made.append(...children);
  return made;
}

function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 120) return `${brief(seconds)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function share(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)} %` : "0 %";
}

// ---- a live run ---------------------------------------------------------------------------------------------------

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

async function follow() {
  let run = new Run();
  let received = 0;
  const began = performance.now();
  for (;;) {
    let wait = 1;
    try {
      const token = sessionStorage.getItem("paceline-token");
      const answer = await fetch(`data?cursor=${run.cursor}`, {
        headers: token ? { Authorization: `Bearer ${token}` } : {},
        signal: AbortSignal.timeout(10000),
      });
      const bytes = Number(answer.headers.get("Content-Length"));
      received += bytes;
      wait = Math.max(1, bytes / LIMIT_BYTES_PER_S);
      const document = await answer.json();
      if ([401, 403, 429].includes(answer.status)) {
        await signIn(token ? document.error : "");
        continue;
      }
      if (!answer.ok) throw new Error(document.error);
      run.take(document);
      notice("");
      show(run);
      const seconds = (performance.now() - began) / 1000;
      at("traffic").textContent = `· ${brief(received / 1000)} KB received in ${span(seconds)}`;
    } catch (error) {
      const over = run.now && ["done", "failed", "stopped"].includes(run.now.state);
      const what = over ? `The run is over: ${run.now.situation}.` : "The server does not answer";
      notice(over ? what : `${what} (${error.message}); what is shown is old. It is asked again.`);
      const old = run;
      run = new Run();
      run.now = old.now;
      wait = 3;
    }
    await new Promise((resolve) => { setTimeout(resolve, wait * 1000); });
    while (document.hidden) await new Promise((resolve) => { document.addEventListener("visibilitychange", resolve, { once: true }); });
  }
}

function signIn(reason) {
  notice(reason);
  at("login").hidden = false;
  document.querySelector("main").hidden = true;
  return new Promise((resolve) => {
    at("login").onsubmit = (event) => {
      event.preventDefault();
      const token = at("token").value.trim();
      if (!/^pl_[0-9a-f]{12}_[0-9a-f]{64}$/.test(token)) {
        notice("This is no token: expected pl_ and 77 characters of 0-9, a-f and _.");
        return;
      }
      sessionStorage.setItem("paceline-token", token);
      at("login").hidden = true;
      document.querySelector("main").hidden = false;
      resolve();
    };
  });
}

// ---- a report -----------------------------------------------------------------------------------------------------

function report(documents) {
  const runs = documents.map((document) => {
    const run = new Run();
    run.take(document);
    return run;
  });
  const choice = at("runs");
  choice.hidden = runs.length < 2;
  choice.replaceChildren(...runs.map((run, place) => {
    const option = element("option", `${run.run.policy}: ${run.run.dir}`);
    option.value = place;
    return option;
  }));
  choice.onchange = () => show(runs[choice.value]);
  if (runs.length > 1) compare(runs);
  show(runs[0]);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(runs[choice.value || 0]));
}

function compare(runs) {
  at("comparison").hidden = false;
  const label = (run, place) => `${place + 1} ${run.run.policy}`;
  const times = runs.map((run) => {
    const stride = run.curve.round.map((round, i) => round - (i ? run.curve.round[i - 1] : 0));
    let sum = 0;
    return run.curve.seconds.map((seconds, i) => { sum += (seconds || 0) * stride[i]; return sum; });
  });
  const joined = uPlot.join(runs.map((run, place) => [times[place], run.curve.loss]));
  charts.compared.draw(joined[0], runs.map((run, place) => ({ label: label(run, place), values: joined[place + 1] })), { xLabel: "seconds" });
  const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.now.metrics)))];
  const head = ["run", "state", "rounds", "seconds", "worker seconds", "wasted", "waited s", "cost", "loss", ...metrics, "directory"];
  fill(at("comparing"), head, runs.map((run, place) => {
    const { now } = run;
    const busy = now.used_s + now.wasted_s;
    return {
      cells: [label(run, place), now.state, String(now.version), brief(now.training_s), brief(busy), share(now.wasted_s, busy), brief(now.idle_s),
        brief(now.cost), brief(now.loss), ...metrics.map((name) => brief(now.metrics[name])), run.run.dir],
    };
  }));
}

const embedded = at("documents");
if (embedded) report(JSON.parse(embedded.textContent));
else follow();
