import { Answers } from './lexora-answers.js';

const JAPANESE = navigator.language.startsWith('ja');
const WORDS = JAPANESE
  ? {
      waiting: '…',
      unknown: 'このプロンプトの答えは用意されていません。',
      took: (ms) => `（${ms} ミリ秒）`,
      aliases: (count) => `ほかの言い方 ${count} 通り`,
      variants: (count) => `答え ${count} 通り:`,
    }
  : {
      waiting: '…',
      unknown: 'No answer to this prompt is prepared.',
      took: (ms) => ` in ${ms} ms`,
      aliases: (count) => `${count} other wordings`,
      variants: (count) => `${count} answers:`,
    };

// This page may stand below a path; it lies in /try/, beside /responses/.
const base = new URL('..', import.meta.url).href.replace(/\/$/, '');
const answers = new Answers(base);
const form = document.getElementById('form');
const field = document.getElementById('prompt');
const output = document.getElementById('answer');
let asking;

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Text of the catalogue's, in the language that it is in as far as one can see. */
function words(name, text, properties) {
  return element(name, { lang: /[぀-ヿ一-鿿]/.test(text) ? 'ja' : '', ...properties }, text);
}

function link(url, text) {
  return element('a', { href: url }, text);
}

async function ask(prompt) {
  asking?.abort();
  const { signal } = (asking = new AbortController());
  output.replaceChildren(WORDS.waiting);
  const started = performance.now();
  try {
    const answer = await answers.ask(prompt, { signal });
    const took = WORDS.took(Math.round(performance.now() - started));
    if (answer) {
      const where = element('small', {}, link(answer.url, answer.url), took);
      output.replaceChildren(words('p', answer.text), where);
    } else {
      output.replaceChildren(element('p', {}, WORDS.unknown));
    }
  } catch (error) {
    if (!signal.aborted) output.replaceChildren(element('p', {}, error.message));
  }
}

function described({ id, prompt, aliases, variants }) {
  const asks = words('button', prompt, {
    type: 'button',
    onclick: () => {
      field.value = prompt;
      ask(prompt);
    },
  });
  const files = Array.from({ length: variants }, (_, k) => {
    const file = link(`${base}/responses/${encodeURIComponent(id)}/${k}.json`, String(k));
    file.setAttribute('aria-label', `${id}/${k}.json`);
    return file;
  });
  const others = element(
    'details',
    {},
    element('summary', {}, WORDS.aliases(aliases.length)),
    element('ul', {}, ...aliases.map((alias) => words('li', alias))),
  );
  return element('li', {}, asks, element('div', {}, element('small', {}, WORDS.variants(variants), ...files)), others);
}

if (JAPANESE) {
  document.documentElement.lang = 'ja';
  for (const labelled of document.querySelectorAll('[data-ja]')) labelled.textContent = labelled.dataset.ja;
}
form.addEventListener('submit', (event) => {
  event.preventDefault();
  ask(field.value);
});
try {
  document.getElementById('prompts').append(...(await answers.prompts()).map(described));
} catch (error) {
  output.replaceChildren(element('p', {}, error.message));
}
