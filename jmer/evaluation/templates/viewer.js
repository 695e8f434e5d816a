"use strict";

// The conversation viewer. Its state is the fragment of the page's address (after "#"): controls change the fragment,
// and each change redraws the viewer. So conversations can be linked to, and the browser's back button works.
// Fragments of headings do not affect the viewer.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const labelled = Object.values(data.splits).some((split) => split.some(({ gold }) => gold.some((label) => label >= 0)));

// The last fragment of the viewer.
let address = location.hash;
const ofViewer = (hash) => new URLSearchParams(hash.slice(1)).has("split");

// Texts of the corpus are appended as text nodes only, never parsed as HTML.
function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function matches(conversation, i, filter) {
  const gold = conversation.gold[i];
  const predicted = conversation.predicted[i];
  if (filter === "all") return true;
  if (filter === "unlabelled") return gold < 0;
  if (filter === "errors") return gold >= 0 && gold !== predicted;
  return filter === `${gold}-${predicted}` || filter === `predicted-${predicted}`;
}

function hits(conversation, filter) {
  return conversation.gold.reduce((sum, _, i) => sum + matches(conversation, i, filter), 0);
}

// Filter -> its label; filters by emotion are in descending order of their number of utterances.
const filters = (split) => (labelled ? filtersByOutcome(split) : filtersByEmotion(split));

function filtersByEmotion(split) {
  const counts = data.emotions.map(() => 0);
  for (const { predicted } of data.splits[split]) for (const emotion of predicted) counts[emotion] += 1;
  const found = [...counts.keys()].filter((emotion) => counts[emotion]).sort((a, b) => counts[b] - counts[a]);
  const named = found.map((emotion) => [`predicted-${emotion}`, `${data.emotions[emotion]} (${counts[emotion]})`]);
  return new Map([["all", "all utterances"], ...named]);
}

function filtersByOutcome(split) {
  const pairs = new Map();
  let unlabelled = 0;
  for (const conversation of data.splits[split]) {
    conversation.gold.forEach((gold, i) => {
      const pair = `${gold}-${conversation.predicted[i]}`;
      if (gold < 0) unlabelled += 1;
      else pairs.set(pair, (pairs.get(pair) || 0) + 1);
    });
  }
  const named = new Map([["all", "all utterances"], ["errors", "all errors"]]);
  if (unlabelled) named.set("unlabelled", `unlabelled (${unlabelled})`);
  const sorted = [...pairs].sort((a, b) => b[1] - a[1]);
  for (const wrong of [true, false]) {
    for (const [pair, count] of sorted) {
      const [gold, predicted] = pair.split("-");
      const text = wrong ? `${data.emotions[gold]} → ${data.emotions[predicted]}` : `correct: ${data.emotions[gold]}`;
      if (wrong === (gold !== predicted)) named.set(pair, `${text} (${count})`);
    }
  }
  return named;
}

// Reads the state from the fragment; missing or unknown values default to the first one.
function readState() {
  const asked = new URLSearchParams(address.slice(1));
  const split = Object.hasOwn(data.splits, asked.get("split")) ? asked.get("split") : Object.keys(data.splits)[0];
  const named = filters(split);
  const filter = named.has(asked.get("filter")) ? asked.get("filter") : "all";
  const conversations = data.splits[split];
  const found = [...conversations.keys()].filter((i) => hits(conversations[i], filter));
  const wanted = Math.max(0, conversations.findIndex((conversation) => conversation.id === asked.get("conversation")));
  // If that conversation does not match, the next one that does.
  const current = found.find((i) => i >= wanted) ?? found[0] ?? wanted;
  return { split, filter, named, found, current };
}

function go(changes) {
  const state = readState();
  const next = {
    split: state.split,
    conversation: data.splits[state.split][state.current].id,
    filter: state.filter,
    ...changes,
  };
  location.hash = new URLSearchParams(next).toString();
}

function turn(by) {
  const { split, found, current } = readState();
  const next = found[(found.indexOf(current) + by + found.length) % found.length];
  if (next !== undefined) go({ conversation: data.splits[split][next].id });
}

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

// Where an utterance is in its recording.
function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, tenths % 600];
  const padded = (rest / 10).toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

// A heading and lines of name, bar and number; `length` is the bar's length, 0 to 1, or null for a missing value.
function bars(heading, lines, className = "") {
  const list = element("dl", className);
  for (const { name, length, number, predicted } of lines) {
    const fill = element("span", "fill");
    fill.style.width = `${100 * (length ?? 0)}%`;
    const bar = element("span", "bar", fill);
    bar.setAttribute("aria-hidden", "true");
    const kind = predicted ? "predicted" : "";
    list.append(element("dt", kind, name), element("dd", kind, bar, element("span", "number", number)));
  }
  return element("div", "bars", element("h3", "", heading), list);
}

function utterance(conversation, i) {
  const gold = conversation.gold[i];
  const predicted = conversation.predicted[i];
  const outcome = gold < 0 ? "unlabelled" : gold === predicted ? "correct" : "wrong";
  const content = element("div", "content");
  const speaker = element("strong", "", conversation.speakers[i]);
  const who = element("p", "who", `${i + 1} · `, speaker, ` · ${conversation.utterances[i]}`);
  if (conversation.times?.[i]) {
    const [start, end] = conversation.times[i];
    who.append(` · ${clock(start)}${end === null ? "" : `–${clock(end)}`}`);
  }
  content.append(who);
  if (conversation.sentences[i]) content.append(element("p", "sentence", conversation.sentences[i]));
  const verdict = element("p", "verdict");
  if (labelled) {
    const text = { correct: "✓ correct", wrong: "✗ wrong", unlabelled: "– unlabelled" }[outcome];
    verdict.append(element("strong", "", text), " · ");
  }
  if (gold >= 0) verdict.append("gold ", element("strong", "gold", data.emotions[gold]), " · ");
  verdict.append("predicted ", element("strong", "guess", data.emotions[predicted]));
  if (conversation.agreement) verdict.append(` · agreement ${(100 * conversation.agreement[i]).toFixed(0)}\u00a0%`);
  content.append(verdict);

  const deviations = conversation.deviations?.[i];
  const probabilities = conversation.probabilities[i].map((probability, emotion) => ({
    name: data.emotions[emotion] + (emotion === gold ? " (gold)" : ""),
    length: probability,
    number: deviations
      ? `${(100 * probability).toFixed(1)} ± ${(100 * deviations[emotion]).toFixed(1)} %`
      : percent(probability),
    predicted: emotion === predicted,
  }));
  const summaries = element("div", "summaries");
  const weights = Object.entries(conversation.weights).map(([modality, values]) => ({
    name: modality,
    length: values[i],
    number: values[i] === null ? "absent" : values[i].toFixed(2),
  }));
  if (weights.length) summaries.append(bars("fusion weights", weights));
  for (const [token, values] of Object.entries(conversation.attention)) {
    // Relative to the largest value of the conversation: in a long one, all values are small.
    const length = values[i] / Math.max(...values);
    summaries.append(bars("attention to this utterance", [{ name: token, length, number: percent(values[i]) }]));
  }
  const shown = bars("probabilities", probabilities, deviations ? "spread" : "");
  const item = element("li", `utterance ${outcome}`, content, shown);
  if (gold < 0) item.style.setProperty("--outcome", `var(--emotion-${predicted})`);
  if (summaries.childNodes.length) item.append(summaries);
  return item;
}

function draw() {
  const { split, filter, named, found, current } = readState();
  const conversations = data.splits[split];
  const conversation = conversations[current];
  // What is no split of a corpus has no name.
  byId("split").parentElement.hidden = split === "";
  fillSelect(byId("split"), Object.keys(data.splits).map((name) => [name, name]), split);
  fillSelect(byId("filter"), [...named], filter);
  const listed = found.length ? found : [current];
  const options = listed.map((i) => {
    const { id, gold } = conversations[i];
    const some = filter === "all" ? "" : `${hits(conversations[i], filter)} of `;
    return [id, `${id} (${some}${gold.length} utterances)`];
  });
  fillSelect(byId("conversation"), options, conversation.id);
  const shown = [...conversation.gold.keys()].filter((i) => matches(conversation, i, filter));
  byId("utterances").replaceChildren(...shown.map((i) => utterance(conversation, i)));
  const place = `conversation ${found.indexOf(current) + 1} of ${found.length}`;
  byId("status").textContent = found.length
    ? `${place}${filter === "all" ? "" : " with matches"}; ${shown.length} of ${conversation.gold.length} utterances shown`
    : `no utterance${split && ` of split ${split}`} matches`;
}

// Scrolls to the beginning of the conversation, after a change of conversation or a link from elsewhere on the page.
function reveal() {
  const top = byId("utterances").getBoundingClientRect().top;
  if (top < 0 || top > window.innerHeight - 100) byId("utterances").scrollIntoView();
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["split", "filter", "conversation"]) {
  byId(name).addEventListener("change", (event) => go({ [name]: event.target.value }));
}
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("utterances").addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) turn(by);
});
window.addEventListener("hashchange", () => {
  if (location.hash && !ofViewer(location.hash)) return;
  address = location.hash;
  draw();
  if (address) reveal();
});
byId("controls").hidden = byId("turn").hidden = false;
draw();
if (ofViewer(address)) reveal();
