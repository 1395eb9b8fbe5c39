"use strict";
// One clock drives everything on the page: the videos, the boxes, the markers of the top view and the charts' cursors.
(() => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const videos = [...document.querySelectorAll("video")];
  const button = document.getElementById("play");
  const slider = document.getElementById("time");
  const clock = document.getElementById("clock");
  const overlay = document.getElementById("overlay");
  const topView = document.getElementById("top-view");
  const times = state.times;
  const gaps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
  const duration = times[times.length - 1] + (gaps.length ? gaps[gaps.length >> 1] : 0.1);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  let playing = false;
  let time = 0;
  let stamp = null;
  let drawnFrame = -1;
  let pictureFrame = 0; // what the clip's video shows, which may lag behind the clock
  let drawnTime = -1;

  const frameAt = (t) => {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= t + 0.002) low = middle; else high = middle - 1;
    }
    return low;
  };
  const element = (name, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    parent.append(made);
    return made;
  };

  function drawOverlay(frame) {
    pictureFrame = frame;
    const group = overlay.querySelector("g");
    group.replaceChildren();
    const width = overlay.viewBox.baseVal.width;
    const height = overlay.viewBox.baseVal.height;
    const taken = []; // left, base line and length of the texts written so far
    const letter = 13 * width / (overlay.clientWidth || width); // so that text is 13 px high on the screen
    if (document.getElementById("show-boxes").checked) {
      for (const box of state.boxes[frame].slice().sort((a, b) => b.b[2] * b.b[3] - a.b[2] * a.b[3])) {
        const [x, y, w, h] = box.b;
        const item = element("g", { class: "k" + box.k }, group);
        element("rect", { class: "edge", x, y, width: w, height: h }, item);
        element("rect", { x, y, width: w, height: h }, item);
        const text = element("text", {}, item);
        text.textContent = box.t;
        const length = (text.getComputedTextLength() + 0.4) * letter;
        const left = Math.max(2, Math.min(x, width - length));
        const free = (base) => base > letter && base < height && !taken.some(([l, b, s]) => left < l + s && l < left + length && Math.abs(b - base) < 1.1 * letter);
        const base = [y - 0.4 * letter, y + h + 1.15 * letter].find(free);
        if (base === undefined) {
          text.remove(); // no room beside the others: the box's colour still says whose it is
          continue;
        }
        taken.push([left, base, length]);
        text.setAttribute("transform", `translate(${left} ${base}) scale(${letter})`);
      }
    }
    overlay.querySelector(".region").setAttribute("d", document.getElementById("show-regions").checked ? state.regions[frame] || "" : "");
  }

  function drawTopView(frame) {
    if (!topView) return;
    const camera = topView.querySelector("[data-camera]");
    const pose = state.top.camera[frame];
    camera.toggleAttribute("hidden", !pose);
    camera.style.display = pose ? "" : "none";
    if (pose) camera.setAttribute("transform", `translate(${pose[0]} ${pose[1]}) rotate(${pose[2]})`);
    for (const marker of topView.querySelectorAll("[data-track]")) {
      const place = state.top.tracks[marker.dataset.track][frame];
      marker.style.display = place ? "" : "none";
      if (!place) continue;
      marker.setAttribute("transform", `translate(${place[0]} ${place[1]})`);
      const ellipse = marker.querySelector("ellipse");
      ellipse.setAttribute("rx", place[2]);
      ellipse.setAttribute("ry", place[3]);
      ellipse.setAttribute("transform", `rotate(${place[4]})`);
    }
  }

  function drawCharts() {
    for (const cursor of document.querySelectorAll(".cursor")) {
      const x = +cursor.dataset.x0 + Math.min(time, times[times.length - 1]) * cursor.dataset.kx;
      cursor.setAttribute("transform", `translate(${x.toFixed(1)} 0)`);
    }
    for (const readout of document.querySelectorAll(".readout")) {
      let best = null;
      for (const row of state.speeds[readout.dataset.track]) {
        const apart = Math.abs(row[0] - time);
        if (apart <= state.grid * 0.75 && row[1] !== null && (!best || apart < Math.abs(best[0] - time))) best = row;
      }
      const band = best && best[2] !== null ? ` (${best[2]} to ${best[3]})` : "";
      readout.textContent = best ? `${best[1]}${band} ${state.unit}${best[4] === "static" ? ", still" : ""}` : "";
    }
  }

  function draw() {
    const frame = frameAt(time);
    if (frame !== drawnFrame) {
      drawnFrame = frame;
      if (!videos[0].requestVideoFrameCallback) drawOverlay(frame);
      drawTopView(frame);
    }
    if (Math.abs(time - drawnTime) > 0.03 || !playing) {
      drawnTime = time;
      slider.value = time;
      slider.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
      clock.textContent = `${time.toFixed(2)} s · frame ${state.frames[frame]}`;
      drawCharts();
    }
  }

  // Playing videos are nudged by their rate and only set when far off; standing ones show exactly the clock's frame.
  function steer(video) {
    if (video.readyState < 1 || video.seeking) return;
    const length = video.duration;
    let ahead = video.currentTime - time;
    if (playing) {
      if (video.paused) video.play().catch(() => {});
      if (ahead > length / 2) ahead -= length;
      if (ahead < -length / 2) ahead += length;
      if (Math.abs(ahead) > 0.3) video.currentTime = Math.min(time, length - 0.01);
      else video.playbackRate = Math.abs(ahead) > 0.02 ? Math.max(0.7, Math.min(1.4, 1 - ahead)) : 1;
    } else {
      if (!video.paused) video.pause();
      const target = Math.min(times[frameAt(time)] + 0.002, length);
      if (Math.abs(video.currentTime - target) > 0.001) video.currentTime = target;
    }
  }

  function tick(now) {
    const ready = videos.every((video) => video.readyState >= 2);
    if (playing && ready && stamp !== null) time = (time + Math.min(0.2, (now - stamp) / 1000)) % duration;
    stamp = now;
    videos.forEach(steer);
    draw();
    requestAnimationFrame(tick);
  }

  function setPlaying(value) {
    playing = value;
    button.setAttribute("aria-pressed", String(value));
    button.setAttribute("aria-label", value ? "Pause" : "Play");
  }
  function seek(value) {
    time = Math.max(0, Math.min(value, duration - 0.001));
    draw();
  }

  function followPicture(_, shown) {
    drawOverlay(frameAt(shown.mediaTime));
    videos[0].requestVideoFrameCallback(followPicture);
  }

  slider.max = times[times.length - 1];
  for (const video of videos) {
    video.removeAttribute("autoplay"); // browsers stop such videos when they are scrolled away
    video.muted = true;
  }
  button.addEventListener("click", () => setPlaying(!playing));
  slider.addEventListener("input", () => { setPlaying(false); seek(+slider.value); });
  for (const id of ["show-boxes", "show-regions"]) document.getElementById(id).addEventListener("change", () => drawOverlay(pictureFrame));
  addEventListener("resize", () => drawOverlay(pictureFrame));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      setPlaying(false);
      seek(times[Math.max(0, Math.min(times.length - 1, frameAt(time) + step))]);
      event.preventDefault();
    } else if (event.key === " " && !event.target.closest("button, input, summary")) {
      setPlaying(!playing);
      event.preventDefault();
    }
  });

  const lineage = document.getElementById("lineage");
  if (lineage) {
    const light = (digests) => {
      for (const edge of lineage.querySelectorAll(".edge")) edge.classList.toggle("lit", digests.has(edge.dataset.digest));
      for (const card of lineage.querySelectorAll(".card")) {
        const made = [...card.querySelectorAll(".output")].some((output) => digests.has(output.dataset.digest));
        card.classList.toggle("lit", made || card.dataset.takes.split(" ").some((digest) => digests.has(digest)));
      }
    };
    for (const card of lineage.querySelectorAll(".card")) {
      card.addEventListener("mouseenter", () => light(new Set(card.dataset.takes.split(" ").filter(Boolean))));
      card.addEventListener("mouseleave", () => light(new Set()));
      for (const output of card.querySelectorAll(".output")) {
        output.addEventListener("mouseenter", () => light(new Set([output.dataset.digest])));
      }
    }
  }

  const walk = document.getElementById("walk");
  if (walk) {
    walk.addEventListener("click", () => {
      walk.remove();
      window.startPlayer();
      if (window.player.focus) window.player.focus();
    });
  }

  // For people at the console, and for the tests.
  window.worldlineReport = {
    duration, seek, play: () => setPlaying(true), pause: () => setPlaying(false),
    get time() { return time; },
    get playing() { return playing; },
    get frame() { return state.frames[frameAt(time)]; },
    get pictureFrame() { return state.frames[pictureFrame]; },
    get videos() { return videos.map((video) => ({ readyState: video.readyState, duration: video.duration, currentTime: video.currentTime })); },
  };
  drawOverlay(0);
  if (videos[0].requestVideoFrameCallback) videos[0].requestVideoFrameCallback(followPicture);
  const moment = /^#t=([\d.]+)$/.exec(location.hash); // a link to a moment opens there and stands still
  setPlaying(!calm && !moment);
  if (moment) seek(+moment[1]);
  if (calm) videos.forEach((video) => video.pause());
  requestAnimationFrame(tick);
})();
