// What the pages of the console cannot do without a script: times in the viewer's zone, ages that
// grow, typed confirmations, copying, and telling screen readers what changed.
"use strict";

(() => {
  const exact = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
    timeZoneName: "short",
  });
  const units = [[86400, "d", 2], [3600, "h", 2], [60, "min", 2], [1, "s", 0]];

  function age(then) {
    const seconds = Math.max(0, (Date.now() - then) / 1000);
    const [size, unit] = units.find(([size, , least]) => seconds >= size * least);
    return `${Math.floor(seconds / size)} ${unit} ago`;
  }

  function showTimes(root) {
    for (const element of root.querySelectorAll("time[data-utc]")) {
      const moment = new Date(element.dateTime);
      element.title = element.title || element.textContent.trim();
      element.textContent = exact.format(moment);
    }
    for (const element of root.querySelectorAll("time[data-ago]")) {
      const moment = new Date(element.dateTime);
      element.title = exact.format(moment);
      element.textContent = age(moment.getTime());
    }
  }

  function guardButtons(root) {
    for (const input of root.querySelectorAll("[data-must-equal]")) {
      const buttons = input.form.querySelectorAll("button[type=submit], button:not([type])");
      const look = () => {
        for (const button of buttons) button.disabled = input.value.trim() !== input.dataset.mustEqual;
      };
      input.addEventListener("input", look);
      look();
    }
  }

  // Times that are typed are meant in the viewer's zone; without a script they are UTC.
  function nameZone(root) {
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    for (const input of root.querySelectorAll("[data-zone]")) input.value = timeZone;
    for (const words of root.querySelectorAll("[data-zone-words]")) words.textContent = timeZone;
  }

  function dress(root) {
    showTimes(root);
    nameZone(root);
    guardButtons(root);
  }

  function tell(text) {
    const told = document.getElementById("told");
    if (told && told.textContent !== text) told.textContent = text;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const words = button.textContent;
    button.textContent = "Copied";
    tell("Copied");
    setTimeout(() => { button.textContent = words; }, 1500);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
  });
  // A form is sent once, however often its button is pressed.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || form.hasAttribute("hx-post")) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });
  document.addEventListener("htmx:afterSettle", (event) => dress(event.target));
  document.addEventListener("htmx:sseMessage", (event) => {
    dress(event.target);
    const leave = event.target.querySelector("[data-leave]");
    if (leave) window.location.assign(leave.dataset.leave);
    const words = event.target.querySelector("[data-tell]");
    if (words) tell(words.dataset.tell);
  });
  setInterval(() => showTimes(document), 30000);
  dress(document);
})();
