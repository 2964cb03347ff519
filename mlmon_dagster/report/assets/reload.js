(() => {
"use strict";
// Asks for the page again when it is old, but not under the hands of somebody who types or picks.
const seconds = Number(document.body.dataset.reload);
const busy = () => document.hidden || document.activeElement?.matches("input, select");
const look = () => busy() ? setTimeout(look, 1000) : location.reload();
if (seconds > 0) setTimeout(look, seconds * 1000);
})();
