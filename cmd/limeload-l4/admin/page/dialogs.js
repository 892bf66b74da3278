// Dialogs. They are modal: the browser keeps the focus inside, Escape closes them, and the focus goes back afterwards.

import { announce, el, setText } from "./dom.js";

let count = 0;

// open shows a dialog until it is closed, and then removes it. The title names it for screen readers.
export function open(dialog, title) {
  title.id = `title-${++count}`;
  dialog.setAttribute("aria-labelledby", title.id);
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
}

// confirm asks before something is changed. It names the consequence, does it, and shows what went wrong.
//
//   title        such as "Drain b2?"
//   consequence  texts, one for each paragraph; or a function that returns them, for fields that change
//   fields       elements of a form, or nothing
//   verb         the text of the button that does it, such as "Drain b2"
//   danger       whether clients lose something
//   act          does it, and returns what has happened for the screen reader; a Failure is shown
export function confirm({ title, consequence, fields = [], verb, danger = false, act }) {
  const heading = el("h2", {}, title);
  const texts = el("div", { class: "consequence", "aria-live": "polite" });
  const failure = el("p", { class: "failure", role: "alert" });
  const no = el("button", { type: "button" }, "Cancel");
  const yes = el("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const form = el("form", { novalidate: true }, heading, ...fields, texts, failure,
    el("div", { class: "buttons" }, no, yes));
  const dialog = el("dialog", { class: "confirm" }, form);

  const explain = () => {
    const lines = typeof consequence === "function" ? consequence() : consequence;
    const text = lines.join("\n");
    if (texts.shown === text) return;
    texts.shown = text;
    texts.replaceChildren(...lines.map((line) => el("p", {}, line)));
  };
  explain();
  form.addEventListener("input", explain);
  no.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!form.checkValidity()) {
      form.reportValidity();
      return;
    }
    yes.disabled = true;
    setText(failure, "");
    try {
      const done = await act();
      dialog.close();
      announce(done);
    } catch (e) {
      setText(failure, e.message);
      yes.disabled = false;
      yes.focus();
    }
  });
  open(dialog, heading);
  (form.querySelector("input, select") || no).focus();
}

// askToken asks for the token until one is given that accepts takes. accepts returns "" or what is wrong.
export function askToken(accepts, left) {
  const heading = el("h2", {}, "Token");
  const input = el("input", { type: "password", id: "token-input", autocomplete: "off", required: true,
    spellcheck: "false", "aria-describedby": "token-about" });
  const failure = el("p", { class: "failure", role: "alert" });
  const later = el("button", { type: "button" }, "Cancel");
  const yes = el("button", { type: "submit", class: "primary" }, "Continue");
  const form = el("form", { novalidate: true }, heading,
    el("p", { id: "token-about" }, "This address needs a token. It is in the file that admin.token_file names. " +
      "This tab keeps it until you close the tab."),
    el("label", { for: "token-input" }, "Token"), input, failure, el("div", { class: "buttons" }, later, yes));
  const dialog = el("dialog", { class: "confirm" }, form);
  later.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = await accepts(input.value.trim());
    if (!wrong) {
      dialog.close("given");
      return;
    }
    setText(failure, "");
    setText(failure, wrong);
    input.select();
  });
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "given") left();
  });
  open(dialog, heading);
  input.focus();
}
