// Lets native range inputs choose among the frames of an explorer, which lie in the explorer itself
// or, on a site, in a file that its `data-frames` names; no library.
(() => {
  // Without it (Safari before 16.4) the first frame stays, and the controls stay hidden.
  if (typeof DecompressionStream === "undefined") return;
  const unpack = (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };
  // A script, because pages opened from a folder may not fetch.
  const load = (url) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.onload = () => resolve(script.frames);
      script.onerror = reject;
      script.src = url;
      document.head.append(script);
    });
  const frames = async (root) =>
    unpack(
      root.dataset.frames
        ? await load(root.dataset.frames)
        : root.querySelector('script[type="application/json"]').textContent,
    );
  const source = (data, at, theme) => {
    const frame = data.items[data.order[at]];
    if (data.kind === "svg") {
      const text = frame.replace(/~(\d+)~/g, (_, i) => data.colors[i][theme]);
      return "data:image/svg+xml," + encodeURIComponent(text);
    }
    const [palettes, body] = frame;
    return "data:image/png;base64," + data.head + palettes[theme] + body;
  };
  for (const root of document.querySelectorAll(".explorer:not([data-ready])")) {
    root.dataset.ready = "";
    const image = root.querySelector("img");
    const inputs = [...root.querySelectorAll("input")];
    const outputs = [...root.querySelectorAll("output")];
    let data = null;
    const show = async () => {
      data ??= frames(root);
      const drawn = await data.catch(() => (data = null));
      if (!drawn) return; // the frame shown stays; the next move of a slider tries again
      const { texts, alts } = drawn;
      let at = 0;
      inputs.forEach((input, i) => {
        const text = texts[i][Number(input.value)];
        at = at * texts[i].length + Number(input.value);
        outputs[i].value = text;
        input.setAttribute("aria-valuetext", text);
      });
      const theme = document.documentElement.dataset.theme === "dark" ? 1 : 0;
      image.src = source(drawn, at, theme);
      image.alt = alts[at];
    };
    inputs.forEach((input) => input.addEventListener("input", show));
    root.querySelector(".explorer-controls").hidden = false;
    new MutationObserver(() => data && show()).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
    new IntersectionObserver(
      (entries, observer) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          observer.disconnect();
          show();
        }
      },
      { rootMargin: "300px" },
    ).observe(root);
  }
})();
