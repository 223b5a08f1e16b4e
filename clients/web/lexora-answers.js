// Lexora's prepared answers, straight from the CDN: an ES module without dependencies. How to use it: docs/clients.md.

/** The form in which prompts are compared: NFKC, case-folded, one space between words, no mark at the end. */
export function normalise(prompt) {
  const text = prompt
    .normalize('NFKC')
    // Case folding, which JavaScript lacks: ß is ss and ς is σ, as in upper case, but ı is not i.
    .replace(/[^ı]+/g, (part) => part.toLowerCase().toUpperCase().toLowerCase().replace(/ς/g, 'σ'))
    // What Python takes for space, as far as NFKC has left it; \s is not the same.
    .replace(/[\t-\r\x1c- \x85\u1680\u2028\u2029]+/g, ' ')
    .replace(/^ /, '');
  let end = text.length;
  while (end && '?!.。、,…~〜 '.includes(text[end - 1])) end--;
  return text.slice(0, end);
}

/** The prepared answers below `base`, such as 'https://cdn.example.com'; `timeout` is that of each fetch, in ms. */
export class Answers {
  #folder;
  #timeout;
  #known;

  constructor(base, { timeout = 5000 } = {}) {
    this.#folder = `${base}`.replace(/\/*$/, '/responses/');
    this.#timeout = timeout;
  }

  /** What is prepared: { id, prompt, aliases, variants } of each prompt. */
  async prompts() {
    return [...new Set((await this.#catalogue()).values())];
  }

  /** The URL of a random variant, or null if nothing is prepared for the prompt. */
  async url(prompt) {
    return this.#shuffled((await this.#catalogue()).get(normalise(prompt)))?.[0] ?? null;
  }

  /**
   * { text, url } of a random variant, or null if nothing is prepared for the prompt. A variant that cannot be had
   * gives way to another, up to three. Throws an Error that says what failed, or what `signal` was aborted with.
   */
  async ask(prompt, { signal } = {}) {
    signal?.throwIfAborted();
    const known = await until(signal, this.#catalogue());
    const urls = this.#shuffled(known.get(normalise(prompt)));
    if (!urls) return null;
    const failed = [];
    for (const url of urls.slice(0, 3)) {
      try {
        return { text: await this.#fetch(url, textOf, signal), url };
      } catch (error) {
        signal?.throwIfAborted();
        failed.push(error.message);
      }
    }
    this.#known = null; // perhaps there are other variants now
    throw new Error(`No variant could be fetched. ${failed.join('; ')}`);
  }

  /** The entries { id, prompt, aliases, variants } by normalised wording. Fetched once; if that fails, again. */
  #catalogue() {
    return (this.#known ??= this.#fetch(this.#folder + 'catalogue.json', byWording).catch((error) => {
      this.#known = null;
      throw new Error(`The catalogue could not be fetched. ${error.message}`, { cause: error });
    }));
  }

  #shuffled(entry) {
    if (!entry) return;
    const folder = this.#folder + encodeURIComponent(entry.id);
    const urls = Array.from({ length: entry.variants }, (_, k) => `${folder}/${k}.json`);
    for (let k = urls.length; k > 1; ) {
      const other = Math.floor(Math.random() * k--);
      [urls[k], urls[other]] = [urls[other], urls[k]];
    }
    return urls;
  }

  async #fetch(url, read, signal) {
    const late = AbortSignal.timeout(this.#timeout);
    try {
      const response = await fetch(url, { signal: signal ? AbortSignal.any([signal, late]) : late });
      if (!response.ok) throw new Error(`status ${response.status}`);
      return read(await response.json());
    } catch (error) {
      throw new Error(`${url}: ${error.message}`, { cause: error });
    }
  }
}

function byWording({ prompts }) {
  const wordings = (entry) => [entry.prompt, ...entry.aliases].map((text) => [normalise(text), entry]);
  return new Map(prompts.flatMap(wordings));
}

function textOf({ response }) {
  if (typeof response != 'string') throw new Error('not an answer');
  return response;
}

/** Waits for what others wait for as well: only this one stops waiting when `signal` is aborted. */
function until(signal, promise) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
