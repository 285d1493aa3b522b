// Equations wider than the page scroll in their own box; let the keyboard reach those, and only those.
(() => {
  const mark = () => {
    for (const box of document.querySelectorAll("mjx-container")) {
      if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === "auto") {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", "Equation, scrolls sideways");
      } else {
        box.removeAttribute("tabindex");
        box.removeAttribute("role");
        box.removeAttribute("aria-label");
      }
    }
  };
  window.addEventListener("load", () => {
    // The theme leaves the title in the side bar outside of every landmark.
    const side = document.querySelector("div.bd-sidebar-primary");
    side?.setAttribute("role", "region");
    side?.setAttribute("aria-label", "The book");
    const typeset = window.MathJax?.startup?.promise ?? Promise.resolve();
    // MathJax measures anew when its fonts arrive, and proofs and solutions unfold.
    typeset.then(() => document.fonts.ready).then(mark);
    document.addEventListener("toggle", mark, true);
    window.addEventListener("resize", mark);
  });
})();
