(() => {
  // Equations wider than the page scroll in their own box; let the keyboard reach those, and only those.
  const mark = (box) => {
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === "auto") {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Equation, scrolls sideways");
    } else {
      box.removeAttribute("tabindex");
      box.removeAttribute("role");
      box.removeAttribute("aria-label");
    }
  };
  // Fonts that arrive, windows that change and solutions that unfold: all of them resize something.
  const sizes = new ResizeObserver((entries) => {
    new Set(entries.map((entry) => entry.target.closest("mjx-container"))).forEach(mark);
  });
  // Paper is light; the explorers follow the theme.
  const root = document.documentElement;
  let theme = null;
  window.addEventListener("beforeprint", () => {
    theme ??= root.dataset.theme;
    root.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme ?? root.dataset.theme;
    theme = null;
  });
  window.addEventListener("load", () => {
    // The theme leaves the title in the side bar outside of every landmark.
    const side = document.querySelector("div.bd-sidebar-primary");
    side?.setAttribute("role", "region");
    side?.setAttribute("aria-label", "The book");
    const typeset = window.MathJax?.startup?.promise ?? Promise.resolve();
    typeset.then(() => {
      const parts = document.querySelectorAll("mjx-container, mjx-container > mjx-math");
      parts.forEach((part) => sizes.observe(part));
    });
  });
})();
