// Keys and copying. Streamlit redraws the page, so everything listens on the document, once.
(() => {
  if (window.qaserve) { return; }
  window.qaserve = true;
  const RESULTS = '[class*="st-key-card"], [class*="st-key-other"], [class*="st-key-near_miss"]';
  const box = () => document.querySelector('input[type="search"]');
  const results = () => [...document.querySelectorAll(RESULTS)];
  const current = () => document.activeElement?.closest(RESULTS);
  const typing = (element) => element?.closest('input, textarea, select, [contenteditable], [role="slider"], [role="radiogroup"], [role="combobox"], [role="listbox"], [data-testid="stDataFrame"], [data-testid="stTabs"]');

  function move(step) {
    const all = results();
    const next = all.indexOf(current()) + step;
    if (next < 0) { box()?.focus(); return; }
    const target = all[Math.min(next, all.length - 1)];
    if (!target) { return; }
    target.tabIndex = -1;
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    const search = box();
    if (!search || event.altKey) { return; }
    const command = event.ctrlKey || event.metaKey;
    const inBox = document.activeElement === search;
    const free = inBox || !typing(document.activeElement);
    if (inBox && event.key === "Enter") { hideOffers(); return; }
    if ((command && event.key.toLowerCase() === "k") || (event.key === "/" && !command && free && !inBox)) {
      search.focus();
      search.select();
    } else if (!command && free && (event.key === "ArrowDown" || event.key === "ArrowUp") && (current() || inBox)) {
      if (inBox && (event.key === "ArrowUp" || !results().length || search.list?.options.length)) { return; }
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (!command && !inBox && free && event.key === "o" && current()) {
      current().querySelector("summary, .qaserve-open button, [class*='st-key-unfold'] button")?.click();
    } else { return; }
    event.preventDefault();
  });

  // Known questions, offered while one is typed. A chosen one is asked at once.
  const offered = document.createElement("datalist");
  offered.id = "qaserve-known";
  document.body.append(offered);
  let asked = 0;
  function hideOffers() { asked++; offered.replaceChildren(); }
  document.addEventListener("input", async (event) => {
    const search = event.target;
    if (search !== box()) { return; }
    if (event.inputType === "insertReplacementText" || !event.inputType) {
      hideOffers();
      setTimeout(() => search.blur());
      return;
    }
    search.setAttribute("list", offered.id);
    search.setAttribute("autocomplete", "off");
    const number = ++asked;
    const reply = await fetch(`suggest?${new URLSearchParams({ q: search.value })}`).catch(() => null);
    const known = reply?.ok ? await reply.json() : [];
    if (number !== asked) { return; }
    offered.replaceChildren(...known.map((question) => {
      const option = document.createElement("option");
      option.value = question;
      return option;
    }));
  });

  // What Streamlit and Vega leave out for screen readers: the role of the place to drop a file, which has a label, and
  // that the rectangle of a selection is no picture. A table that is wider than the screen is scrolled by keys too.
  function mend() {
    document.querySelectorAll('section[role="presentation"][aria-label]').forEach((place) => { place.role = "group"; });
    document.querySelectorAll(".area_brush, .area_brush_bg").forEach((mark) => { mark.ariaHidden = "true"; });
    document.querySelectorAll('[data-testid="stTable"] > div').forEach((frame) => { frame.tabIndex = 0; });
  }
  mend();  // what was drawn before this script ran, and may not change again
  new MutationObserver(mend).observe(
    document.body, { childList: true, subtree: true, attributeFilter: ["role", "aria-label"] });

  // Code in a sentence is copied by a click, or by Enter where it has the focus.
  const INLINE = '[data-testid="stMainBlockContainer"] [data-testid="stMarkdownContainer"] :not(pre) > code';
  async function copy(code) {
    await navigator.clipboard.writeText(code.textContent);
    code.dataset.copied = "true";
    setTimeout(() => { delete code.dataset.copied; }, 1200);
  }
  document.addEventListener("click", (event) => {
    const code = event.target.closest?.(INLINE);
    if (code && !event.target.closest("a, button, summary") && !String(getSelection())) { copy(code); }
    const button = event.target.closest?.("button[data-copy]");
    if (button) {
      const said = button.textContent;
      const text = button.dataset.copy === "link" ? location.href : button.dataset.copy;
      navigator.clipboard.writeText(text).then(() => {
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = said; }, 1200);
      });
    }
  });
})();
