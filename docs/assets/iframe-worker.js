// Search in pages that are opened from disk. A browser starts no worker from a file: the script of the worker runs in a
// hidden frame, and talks to the page by the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      const load = (script) =>
        new Promise((loaded, failed) => {
          const element = inside.document.createElement("script");
          Object.assign(element, { src: new URL(script, document.baseURI).href, onload: loaded, onerror: failed });
          inside.document.head.append(element);
        });
      inside.importScripts = (...scripts) => Promise.all(scripts.map(load));
      inside.postMessage = (data) => {
        const message = new MessageEvent("message", { data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      };
      this.ready = load(address);
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
