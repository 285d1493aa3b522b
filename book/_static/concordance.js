// Filters and sorts the claims; without it all of them are shown, in the order of the paper.
(() => {
  const form = document.querySelector(".concordance-tools");
  const list = document.querySelector(".concordance");
  const claims = [...list.children];
  // Read before the formulas are typeset, so that a search for "rho" finds them.
  const text = new Map(claims.map((claim) => [claim, claim.textContent.toLowerCase()]));
  const verdicts = [...form.elements.verdict.options].map((option) => option.value);
  const orders = {
    "": () => 0,
    id: (a, b) => a.id.localeCompare(b.id, "en", { numeric: true }),
    verdict: (a, b) => verdicts.indexOf(a.dataset.verdict) - verdicts.indexOf(b.dataset.verdict),
    checks: (a, b) => b.dataset.checks - a.dataset.checks,
  };
  const update = () => {
    const { part, verdict, order, words } = Object.fromEntries(new FormData(form));
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const claim of claims) {
      claim.hidden =
        (part && claim.dataset.part !== part) ||
        (verdict && claim.dataset.verdict !== verdict) ||
        !wanted.every((word) => text.get(claim).includes(word));
      shown += !claim.hidden;
    }
    list.append(...[...claims].sort(orders[order]));
    form.querySelector("output").value = `${shown} of ${claims.length} claims`;
  };
  // A link to a claim that is filtered away shows it again.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.hidden) {
      form.reset();
      update();
    }
    target?.scrollIntoView();
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", reveal);
  form.hidden = false;
  update();
  if (location.hash) reveal();
})();
